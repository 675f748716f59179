"""The result of an optimization as data, as JSON, and as lines a person can read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from export.measure import Timing
from export.verify.equivalence import Equivalence
from fx_passes.plan import Plan
from fx_passes.records import Finding

FIND_SCHEMA = "fx-passes/find/1"
OPTIMIZE_SCHEMA = "fx-passes/optimize/1"
CHECK_SCHEMA = "fx-passes/check/1"
FOLDED = "stored whole: the exporter folds the batch norm behind it into the weight, a scale for each channel"


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
