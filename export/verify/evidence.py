"""The result of each case, and the verdict of all cases together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from export.runtime.session import Array
from export.verify.cases import EXAMPLE, Case
from export.verify.compare_output import Comparison, Pair, Rules, compare, worst_of
from export.verify.difference import Difference
from export.verify.level import Level
from export.verify.lost_numbers import lost_number, overflow
from export.verify.truth import Truth
from fx_passes.errors import ExportError


@dataclass(frozen=True)
class OutputError:
    """The worst comparison of one output over all cases: errors against the reference or the original, and
    the bound."""

    name: str
    max_abs_error: float
    baseline_error: float
    bound: float


@dataclass(frozen=True)
class Equivalence:
    """The verdict: how it was checked, the error of each output, and the first mismatch if there is one.

    ``sensitive`` names an output that jumps if rounding turns a decision. Then only the rounding of the
    original itself is right. That the files agree here says nothing about another processor. ``sizes`` has
    the shapes of all inputs for each case whose shapes are not those of the example.
    """

    passed: bool
    cases: int
    bitwise: bool
    reference: str
    outputs: tuple[OutputError, ...]
    mismatch: Difference | None = None
    notes: tuple[str, ...] = ()
    sizes: Mapping[str, tuple[tuple[int, ...], ...]] = field(default_factory=dict)
    failing_inputs: tuple[Array, ...] | None = field(default=None, repr=False, compare=False)
    sensitive: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The "equivalence" object of the JSON contract."""
        return {
            "passed": self.passed,
            "cases": self.cases,
            "bitwise": self.bitwise,
            "reference": self.reference,
            "outputs": [vars(output) for output in self.outputs],
            "mismatch": None if self.mismatch is None else str(self.mismatch),
            "sensitive": self.sensitive,
            "site": None if self.mismatch is None else self.mismatch.site,
            "notes": list(self.notes),
            "sizes": {case: [list(shape) for shape in shapes] for case, shapes in self.sizes.items()},
        }


@dataclass(frozen=True)
class Outputs:
    """The outputs of both files for one case, at one level.

    Args:
        case: the input.
        level: where both files ran.
        original: the outputs of the original.
        found: the outputs of the optimized file, or the error if it does not run.
    """

    case: Case
    level: Level
    original: Sequence[Array]
    found: Sequence[Array] | ExportError


@dataclass(frozen=True)
class CaseResult:
    """The result of one case.

    Args:
        case: the input.
        comparisons: one for each output; none if a file does not run.
        notes: for the report.
        fault: the difference, if the optimized file does not run.
        sensitive: the output that jumps.
        refused: the original does not run on this input, so the case does not count.
    """

    case: Case
    comparisons: tuple[Comparison, ...] = ()
    notes: tuple[str, ...] = ()
    fault: Difference | None = None
    sensitive: str | None = None
    refused: bool = False

    @property
    def difference(self) -> Difference | None:
        """The first difference that is too large."""
        return self.fault or next((one.difference for one in self.comparisons if one.difference), None)


def compare_case(outputs: Outputs, names: Sequence[str], rules: Rules, truth: Truth) -> CaseResult:
    """Compare all outputs of one case. ``names`` are the names of the outputs."""
    case, level = outputs.case, outputs.level
    if isinstance(outputs.found, ExportError):
        said = f"the original runs, the optimized file does not: {outputs.found}"
        return CaseResult(case, fault=Difference(names[0], case.name, level, detail=said))
    ideals = truth.ideals(case, len(names))
    notes = [truth.failed]
    sensitive = truth.jump(case, names) if level == Level() and not rules.bitwise else None
    comparisons = []
    for i, name in enumerate(names):
        original, found = outputs.original[i], outputs.found[i]
        ideal = None if ideals is None else ideals[i]
        spread = partial(truth.spread, case, i)
        comparisons.append(compare(Pair(name, case.name, level, original, found, ideal, spread, rules)))
        notes.append(overflow(name, case.name, original) if rules.finite_only else None)
        notes.append(lost_number(name, case.name, original, ideal))
        if comparisons[-1].difference and sensitive is None and not rules.bitwise:
            sensitive = truth.turned(case, names, i, original.dtype)
    return CaseResult(case, tuple(comparisons), tuple(n for n in notes if n), sensitive=sensitive)


def verdict(
    results: Sequence[CaseResult], cases: Sequence[Case], names: Sequence[str], reference: str
) -> Equivalence:
    """The verdict of all results.

    Args:
        results: of each level and case, in the order in which they were found.
        cases: all inputs. A case that the original refused at any level does not count.
        names: the names of the outputs.
        reference: what the errors were measured against.
    """
    refused = {result.case.name for result in results if result.refused}
    tried = {case.name: tuple(x.shape for x in case.inputs) for case in cases if case.name not in refused}
    failed = next((result for result in results if result.difference), None)
    sensitive = next((result.sensitive for result in results if result.sensitive), None)
    compared = [result.comparisons for result in results if result.comparisons]
    worst = [worst_of(of_case[i] for of_case in compared) for i in range(len(names))]
    return Equivalence(
        passed=failed is None and sensitive is None,
        cases=len(tried),
        bitwise=failed is None and all(one.bitwise for of_case in compared for one in of_case),
        reference=reference,
        outputs=tuple(
            OutputError(name, one.error, one.baseline_error, one.bound)
            for name, one in zip(names, worst, strict=True)
        ),
        mismatch=failed.difference if failed else None,
        notes=tuple(dict.fromkeys(note for result in results for note in result.notes)),
        sizes={case: shapes for case, shapes in tried.items() if shapes != tried.get(EXAMPLE)},
        failing_inputs=tuple(failed.case.inputs) if failed else None,
        sensitive=sensitive,
    )
