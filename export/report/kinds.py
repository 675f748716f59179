"""Sites that are alike, as one kind: what they are, what became of them, and why."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from export.report.alike import geometry_text
from export.report.details import SiteDetail
from export.report.result import Report
from export.runtime.arrays import shape_text
from fx_passes.records import Finding

# What became of a site, in the words of reports.
STATUS = {
    "lowered": "computed in another way",
    "once": "stored once",
    "kept": "kept as it was",
    "refused": "not shared",
}


@dataclass(frozen=True)
class Bar:
    """A way to compute a site that was timed."""

    name: str
    ms: float
    chosen: bool


@dataclass(frozen=True)
class Timed:
    """The ways that were timed in one setting. ``where`` names its sizes and threads, where there are
    several."""

    where: str
    bars: tuple[Bar, ...]


@dataclass(frozen=True)
class Kind:
    """Sites that are alike.

    Args:
        findings: the sites.
        status: a key of ``STATUS``.
        lowering: the new form; None: they are as they were.
        exactness: of the new form.
        reasons: why they are as they are, or why not more was done.
        joined: they are computed as one with other sites.
        timed: the candidates with their times.
        detail: of the first site.
    """

    findings: tuple[Finding, ...]
    status: str
    lowering: str | None
    exactness: str | None
    reasons: tuple[str, ...]
    joined: bool
    timed: tuple[Timed, ...]
    detail: SiteDetail

    @property
    def first(self) -> Finding:
        """One of the sites, which stands for all."""
        return self.findings[0]

    @property
    def what(self) -> str:
        """The new form, or that there is none."""
        return self.lowering if self.lowering and self.status == "lowered" else STATUS[self.status]

    @property
    def weight(self) -> str:
        """The shape of the weight, and that of the kernel where it is smaller."""
        before, after = (
            shape_text(shape) or "?" for shape in (self.first.weight_shape, self.first.kernel_shape)
        )
        return f"{before} → {after}" if self.first.shared and self.first.groups > 1 else before

    @property
    def title(self) -> str:
        """The operator and its geometry."""
        return geometry_text(self.first.site.geometry)


def kinds_of(report: Report) -> list[Kind]:
    """The sites of a report by kind. What changed most comes first, then the largest kinds."""
    by_facts: dict[Any, list[Finding]] = {}
    for finding in report.findings:
        by_facts.setdefault(_facts(report, finding), []).append(finding)
    kinds = [_kind(report, findings) for findings in by_facts.values()]
    order = list(STATUS)
    return sorted(kinds, key=lambda kind: (order.index(kind.status), -len(kind.findings)))


def _facts(report: Report, finding: Finding) -> Any:
    """What sites of one kind have in common."""
    geometry = finding.site.geometry
    choice = report.plan.choices.get(report.whole.get(finding.id, finding.id))
    detail = report.details.sites.get(finding.id) if report.details else None
    kernel = None if detail is None or detail.kernel is None else detail.kernel.tobytes()
    return (
        choice.key if choice else kernel,
        (finding.op, finding.groups, finding.weight_shape, finding.kernel_shape),
        (geometry.stride, geometry.dilation),
        (_status(report, finding), report.lowering_of(finding), report.exactness_of(finding)),
        tuple(_reasons(report, finding)),
    )


def _kind(report: Report, findings: list[Finding]) -> Kind:
    first = findings[0]
    details = report.details.sites if report.details else {}
    return Kind(
        findings=tuple(findings),
        status=_status(report, first),
        lowering=report.lowering_of(first),
        exactness=report.exactness_of(first),
        reasons=tuple(_reasons(report, first)),
        joined=first.id in report.whole,
        timed=tuple(_timed(report, first)),
        detail=details.get(first.id, SiteDetail()),
    )


def _status(report: Report, finding: Finding) -> str:
    if not finding.shared:
        return "refused"
    lowering = report.lowering_of(finding)
    return "lowered" if lowering and lowering != "expand" else "once" if lowering else "kept"


def _reasons(report: Report, finding: Finding) -> Iterator[str]:
    """Why a site is as it is: what the search for kernels said, and what refused or kept it."""
    whole = report.whole.get(finding.id, finding.id)
    if finding.reason:
        yield finding.reason
    if why := report.kept.get(finding.id):
        yield why
    yield from report.outside.get(whole, ())
    choice = report.plan.choices.get(whole)
    if finding.shared and choice and not choice.proposal and not report.kept.get(finding.id):
        yield _decided(report)


def _decided(report: Report) -> str:
    """Why a site that could be lowered is not."""
    if failed := report.plan.made.get("failed"):
        return f"the candidates could not be timed: {failed}"
    return {
        "expand": "no lowering was asked for",
        "plan": "the plan keeps it",
        "static": "the rules expect no gain from a lowering",
    }.get(report.lowering, "no lowering was measurably faster both by itself and in the whole graph")


def _timed(report: Report, finding: Finding) -> Iterator[Timed]:
    """The candidates that were timed, the fastest first, for each setting."""
    chosen = report.lowering_of(finding) or "expand"
    rows = [row for row in report.candidates_of(finding) if "ms" in row]
    for (shape, threads), ways in groupby(rows, lambda row: (row.get("shape"), row.get("threads"))):
        bars = [Bar(way["lowering"], way["ms"], way["lowering"] == chosen) for way in ways]
        where = [f"input {shape}"] if shape else []
        where += [f"{threads} threads"] if threads else []
        yield Timed(", ".join(where), tuple(sorted(bars, key=lambda bar: bar.ms)))
