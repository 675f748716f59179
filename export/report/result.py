"""The result of an optimization as data, and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from export.report.details import Details
from export.runtime.timed_key import parts_of
from export.speed import Timing
from export.verify.equivalence import Equivalence
from fx_passes.plan import Plan
from fx_passes.records import Finding

FIND_SCHEMA = "fx-passes/find/1"
OPTIMIZE_SCHEMA = "fx-passes/optimize/1"
CHECK_SCHEMA = "fx-passes/check/1"


@dataclass(frozen=True)
class Report:
    """What ``optimize`` found, decided, did, verified and measured.

    Args:
        output: the file that was written; None if none was.
        route: how the graph was got.
        once: the ids of the sites whose repeated kernel is now stored once, and expanded.
        kept: by id, why a shared site cannot be lowered.
        outside: by the id of a lowered site, why a Pad or a Slice beside it stays.
        whole: of a site that is computed as one with others, the id of them all in the plan.
        seconds: how long each stage took.
        sizes: what the model needs of its open sizes, beyond what was asked for.
        speed_at: for each number of threads and each input that was timed, the shapes of the input and the
            times. The first is ``speed``.
        stamped: whether the caller asked for a note of what was done.
        details: what a report for people shows besides. None: it was not asked for.
    """

    model: str
    output: Path | None
    lowering: str
    route: str
    findings: tuple[Finding, ...]
    equivalence: Equivalence
    speed: Timing | None
    baseline_bytes: int
    optimized_bytes: int
    environment: dict[str, Any]
    once: frozenset[str] = frozenset()
    plan: Plan = field(default_factory=lambda: Plan({}))
    kept: Mapping[str, str] = field(default_factory=dict)
    outside: Mapping[str, Sequence[str]] = field(default_factory=dict)
    whole: Mapping[str, str] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    sizes: tuple[str, ...] = ()
    speed_at: tuple[tuple[tuple[tuple[int, ...], ...], Timing], ...] = ()
    stamped: bool = False
    details: Details | None = None

    @property
    def rewritten(self) -> bool:
        """Whether the file has any convolution in another form; one of a single channel may be lowered."""
        return any(self.lowering_of(finding) for finding in self.findings)

    @property
    def shared_count(self) -> int:
        """Sites whose groups share one kernel. Sites of a single channel have nothing to share."""
        return count_shared(self.findings)

    def lowering_of(self, finding: Finding) -> str | None:
        """What became of a site in the file. None if it is as the stock exporter writes it."""
        choice = self.plan.choices.get(self.whole.get(finding.id, finding.id))
        if choice is not None and choice.proposal is not None:
            return choice.proposal.name
        return "expand" if finding.id in self.once else None

    def together_with(self, finding: Finding) -> tuple[str, ...]:
        """The ids of the other sites that are computed as one with a site."""
        whole = self.whole.get(finding.id)
        return tuple(name for name, its in self.whole.items() if its == whole and name != finding.id)

    def exactness_of(self, finding: Finding) -> str | None:
        """How exact the new form of a site is. None if it is as the stock exporter writes it."""
        choice = self.plan.choices.get(self.whole.get(finding.id, finding.id))
        if choice is not None and choice.proposal is not None:
            return choice.proposal.exactness
        return "bitwise" if self.lowering_of(finding) else None

    def candidates_of(self, finding: Finding) -> list[dict[str, Any]]:
        """What a site could have become, with milliseconds if that was timed."""
        choice = self.plan.choices.get(self.whole.get(finding.id, finding.id))
        known = self.plan.made.get("timings_ms", {}) if choice else {}
        timed = [(parts_of(key), times) for key, times in known.items()]
        rows = [
            {"lowering": name, "ms": ms}
            | ({"shape": key.shape} if key.shape else {})
            | ({"threads": int(key.threads)} if key.threads else {})
            for key, times in timed
            for name, ms in times.items()
            if choice is not None and key.site == choice.key
        ]
        if rows:
            return rows
        chosen = self.lowering_of(finding)
        names = ["expand"] if finding.shared and finding.groups > 1 else []
        return [{"lowering": name} for name in dict.fromkeys([*names, *([chosen] if chosen else [])])]

    def to_json(self) -> dict[str, Any]:
        """The object of the JSON contract for ``optimize``."""
        return {
            "schema": OPTIMIZE_SCHEMA,
            "model": self.model,
            "output": None if self.output is None else str(self.output),
            "route": self.route,
            "sites": [
                {
                    **f.to_json(),
                    "lowering": self.lowering_of(f),
                    "exactness": self.exactness_of(f),
                    "candidates": self.candidates_of(f),
                    "outside": list(self.outside.get(self.whole.get(f.id, f.id), ())),
                    "together_with": list(self.together_with(f)),
                }
                for f in self.findings
            ],
            "equivalence": self.equivalence.to_json(),
            "speed": self._speed_json(),
            "open_sizes": list(self.sizes),
            "size": {"baseline_bytes": self.baseline_bytes, "optimized_bytes": self.optimized_bytes},
            "environment": self.environment,
            "seconds": dict(self.seconds),
        }

    def _speed_json(self) -> dict[str, Any] | None:
        if self.speed is None:
            return None
        rows = [{"inputs": [list(s) for s in shapes], **one.to_json()} for shapes, one in self.speed_at]
        first = self.speed.threads
        return {
            **self.speed.to_json(),
            "sizes": [row for row in rows if row["threads"] == first],
            "other_threads": [row for row in rows if row["threads"] != first],
        }


def count_shared(findings: Iterable[Finding]) -> int:
    """How many findings share a kernel among two or more groups."""
    return sum(finding.shared and finding.groups > 1 for finding in findings)


def find_json(model: str, route: str, findings: Sequence[Finding]) -> dict[str, Any]:
    """The object of the JSON contract for ``find``."""
    sites = [finding.to_json() for finding in findings]
    return {"schema": FIND_SCHEMA, "model": model, "route": route, "sites": sites}
