"""The result of an optimisation as data, as JSON, and as lines a person can read."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.table import Table

from export.blocks import Ratio
from export.equivalence import Equivalence
from export.measure import Timing
from fx_passes.plan import Plan
from fx_passes.records import Finding

FIND_SCHEMA = "fx-passes/find/1"
OPTIMIZE_SCHEMA = "fx-passes/optimize/1"
CHECK_SCHEMA = "fx-passes/check/1"
FOLDED = "stored whole: the exporter folds the batch norm behind it into the weight, a scale for each channel"


EXACTNESS_TEXT = {
    "bitwise": "equal bits",
    "reordered": "rounds differently",
    "finite": "rounds differently, for finite inputs",
}


@dataclass(frozen=True)
class Report:
    """What ``optimize`` found, decided, did, verified and measured.

    ``output`` is None where nothing was written. ``folded`` has the ids of shared sites whose weight is
    stored whole, because the exporter multiplies the scales of a batch norm into it; ``kept`` says, by id,
    why a shared site cannot be lowered; ``rejected`` why the route before ``route`` gave no graph;
    ``seconds`` how long each stage took;
    ``sizes`` what the model needs of its open sizes beyond what was asked for.
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
    folded: frozenset[str] = frozenset()
    plan: Plan = field(default_factory=lambda: Plan({}))
    kept: Mapping[str, str] = field(default_factory=dict)
    rejected: str | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    sizes: tuple[str, ...] = ()

    @property
    def rewritten(self) -> bool:
        """Whether any convolution is in the file in another form; one of one channel may be lowered."""
        return any(self.lowering_of(finding) for finding in self.findings)

    @property
    def shared_count(self) -> int:
        """Sites whose groups share one kernel; single-channel ones have nothing to share."""
        return count_shared(self.findings)

    def lowering_of(self, finding: Finding) -> str | None:
        """What became of a site in the file; None where it is as the stock exporter writes it."""
        choice = self.plan.choices.get(finding.id)
        if choice is not None and choice.proposal is not None:
            return choice.proposal.name
        stored_once = finding.shared and finding.groups > 1 and finding.id not in self.folded
        return "expand" if stored_once else None

    def exactness_of(self, finding: Finding) -> str | None:
        """How exact what became of a site is; None where it is as the stock exporter writes it."""
        choice = self.plan.choices.get(finding.id)
        if choice is not None and choice.proposal is not None:
            return choice.proposal.exactness
        return "bitwise" if self.lowering_of(finding) else None

    def candidates_of(self, finding: Finding) -> list[dict[str, Any]]:
        """What could have become of a site, with the milliseconds it took where that was timed."""
        choice = self.plan.choices.get(finding.id)
        timed = self.plan.made.get("timings_ms", {}).get(choice.key, {}) if choice else {}
        if timed:
            return [{"lowering": name, "ms": ms} for name, ms in timed.items()]
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
                }
                | ({"reason": FOLDED} if f.id in self.folded else {})
                for f in self.findings
            ],
            "equivalence": self.equivalence.to_json(),
            "speed": None if self.speed is None else self.speed.to_json(),
            "open_sizes": list(self.sizes),
            "size": {"baseline_bytes": self.baseline_bytes, "optimized_bytes": self.optimized_bytes},
            "environment": self.environment,
            "seconds": dict(self.seconds),
        }


def count_shared(findings: Iterable[Finding]) -> int:
    """How many findings share a kernel among more than one group."""
    return sum(finding.shared and finding.groups > 1 for finding in findings)


def find_json(model: str, route: str, findings: Sequence[Finding]) -> dict[str, Any]:
    """The object of the JSON contract for ``find``."""
    sites = [finding.to_json() for finding in findings]
    return {"schema": FIND_SCHEMA, "model": model, "route": route, "sites": sites}


def environment(threads: int) -> dict[str, Any]:
    """The machine and the versions that a result depends on."""
    packages = ("fx-passes", "torch", "onnx", "onnxruntime", "onnxscript", "numpy")
    versions = {name: metadata.version(name) for name in packages}
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "threads": threads,
        **versions,
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


def site_table(findings: Sequence[Finding], report: Report | None = None) -> Table:
    """One row a site: what it is, what its weight was and became, and why if nothing was done."""
    table = Table(box=None, pad_edge=False)
    for title in ("site", "form", "op"):
        table.add_column(title, overflow="fold")
    table.add_column("groups", justify="right")
    table.add_column("weight -> kernel")
    table.add_column("lowering or reason" if report else "verdict", overflow="fold")
    for finding in findings:
        before, after = shape_text(finding.weight_shape), shape_text(finding.kernel_shape)
        table.add_row(
            finding.id,
            finding.site.form,
            finding.op,
            str(finding.groups or "?"),
            f"{before} -> {after}" if finding.shared and finding.groups > 1 else before,
            _verdict(finding, report),
        )
    return table


def _verdict(finding: Finding, report: Report | None) -> str:
    """What became of a site (or ``shared``) with its note, or ``not shared: reason``."""
    if not finding.shared:
        return f"not shared: {finding.reason}"
    lowering = report.lowering_of(finding) if report else None
    if report and finding.id in report.folded:
        return FOLDED
    if lowering and lowering != "expand":
        assert report is not None
        return f"{lowering} ({EXACTNESS_TEXT[report.exactness_of(finding) or 'bitwise']})"
    notes = [finding.reason, report.kept.get(finding.id) if report else None]
    note = "; ".join(note for note in notes if note)
    if finding.groups == 1:  # there is nothing to share
        return note
    word = lowering or "shared"
    return f"{word} ({note})" if note else word


def shape_text(shape: Sequence[int]) -> str:
    """(3, 1, 11, 11) as ``3x1x11x11``."""
    return "x".join(map(str, shape)) or "?"


def summary_lines(report: Report) -> list[str]:
    """The result in a few plain lines."""
    check, lines = report.equivalence, list(report.sizes)
    if not report.rewritten:
        what = "no convolution was rewritten" if report.shared_count else "nothing was shared"
        lines.append(f"{what}: the output is the plain export")
    if why := report.plan.made.get("kept"):
        lines.append(f"every convolution is kept: {why}")
    if failed := report.plan.made.get("failed"):
        lines.append(f"nothing was lowered, as the candidates could not be timed: {failed}")
    bits = "equal bits" if check.bitwise else "within bounds"
    lines.append(f"equivalence: passed, {bits} in {check.cases} cases ({check.reference})")
    lines += [f"  {case}: {', '.join(map(shape_text, shapes))}" for case, shapes in check.sizes.items()]
    lines += [f"  {note}" for note in check.notes]
    if report.speed is not None:
        lines.append(f"speed: {speed_text(report.speed)}")
    kib = report.baseline_bytes / 1024, report.optimized_bytes / 1024
    lines.append(f"size: {kib[0]:.1f} KiB -> {kib[1]:.1f} KiB")
    lines.append(f"time: {sum(report.seconds.values()):.1f} s")
    lines += [f"  {seconds:6.1f} s {stage}" for stage, seconds in report.seconds.items()]
    return lines


def speed_text(speed: Timing) -> str:
    """Both times, the ratio with its interval, the control, and what they let one say."""
    word = "faster" if speed.faster else "slower" if speed.slower else "no measurable difference"
    if not speed.enough:
        word = "no claim, as one block of sessions has no interval; give more --seconds"
    noisy = ", noisy" if speed.noisy else ""
    control = f"original against itself: {_ratio_text(speed.control, speed)}"
    basis = f"{len(speed.blocks)} blocks of fresh sessions, {speed.runs} runs, {speed.threads} thread(s)"
    times = f"{speed.baseline_ms:.4g} ms -> {speed.optimized_ms:.4g} ms"
    return f"{times}, {_ratio_text(speed.ratio, speed)}: {word}{noisy} ({control}; {basis})"


def _ratio_text(ratio: Ratio, speed: Timing) -> str:
    low, high = ratio.ci95
    interval = f" [{low:.3f}, {high:.3f}]" if speed.enough else ""
    return f"{ratio.value:.3f}x{interval}"
