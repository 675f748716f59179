"""Does the optimized file compute what the original does? onnxruntime runs both, and float64 is the
reference.

Every case is an input. Both files run on each, with the optimization of onnxruntime on and off. Every output
is compared (``compare_output.py``). Only one session is open at a time: weights may be large.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import onnxruntime as ort

from export.runtime.session import Array, open_session, run
from export.verify.cases import EXAMPLE, Case, make_cases
from export.verify.compare_output import Rules
from export.verify.evidence import CaseResult, Equivalence, Outputs, compare_case, verdict
from export.verify.signature import Slot, require_deterministic, require_same_signature, signature_of
from export.verify.truth import Reference, Truth
from fx_passes.capture.asked_sizes import OpenSizes
from fx_passes.errors import ExportError

__all__ = ["Equivalence", "check_equivalence"]


def check_equivalence(
    baseline: Path | str,
    optimized: Path | str,
    *,
    example_inputs: Sequence[Array] | None = None,
    reference: Reference | None = None,
    require_bitwise: bool = False,
    non_finite: bool = False,
    finite_only: bool = False,
    sizes: OpenSizes | None = None,
    progress: Callable[[str], None] | None = None,
) -> Equivalence:
    """Compare two ONNX files on inputs made for the purpose.

    Args:
        baseline, optimized: the files.
        example_inputs: arrays in the order of the inputs. They give open sizes, and the range of integers.
        reference: the original model in float64: arrays in, arrays out. None: it cannot run.
        require_bitwise: require equal bits. Otherwise equal bits also pass, and are reported.
        non_finite: add a case with Inf and NaN in the inputs.
        finite_only: if the original overflows, Inf and NaN may reach more elements of the optimized file.
        sizes: what the model needs of its open sizes. Otherwise other sizes are guesses.
        progress: called with the name of each case, once for each optimization level.

    Raises:
        ExportError: onnxruntime does not accept a file, the original does not run on its own inputs, or it
            gives another output each time.
        NotEquivalentError: the files do not have the same inputs and outputs.
        UsageError: the example inputs do not fit the files.
    """
    check = _Check(
        Path(baseline),
        Path(optimized),
        Rules(require_bitwise, finite_only),
        Truth(Path(baseline), reference),
        progress or (lambda case: None),
    )
    make = partial(make_cases, example_inputs=example_inputs, special=non_finite, sizes=sizes)
    first = _compare_level(check, True, make)
    second = _compare_level(check, False, lambda session: first.cases)
    described = _described(check.truth.reference, check.rules)
    return verdict([*first.results, *second.results], first.cases, first.names, described)


@dataclass(frozen=True)
class _Check:
    """What both levels share."""

    baseline: Path
    optimized: Path
    rules: Rules
    truth: Truth
    progress: Callable[[str], None]


@dataclass(frozen=True)
class _Level:
    """The results of one level, with the cases and the names of the outputs."""

    cases: Sequence[Case]
    names: Sequence[str]
    results: Sequence[CaseResult]


def _compare_level(
    check: _Check, optimized_session: bool, make: Callable[[ort.InferenceSession], Iterable[Case]]
) -> _Level:
    """Run both files, one after the other, in sessions of one level, and compare case by case.

    Args:
        make: gives the cases for a session of the original.
    """
    original = _run_original(check.baseline, optimized_session, make)
    found = _run_optimized(original, check.optimized)
    results = list(original.refusals)
    for case in original.cases:
        if case.name in found:
            check.progress(case.name if optimized_session else f"{case.name}, optimization off")
            outputs = Outputs(case, optimized_session, original.outputs[case.name], found[case.name])
            results.append(compare_case(outputs, original.names, check.rules, check.truth))
    check.truth.close()
    return _Level(original.cases, original.names, results)


@dataclass(frozen=True)
class _Original:
    """The results of the original in one session, as plain values: the session is closed.

    Args:
        optimized_session: whether the session optimizes.
        cases: all inputs.
        signature: names, types and sizes of the inputs and outputs.
        outputs: by case. A case that the original refuses has none.
        refusals: the messages for those.
    """

    optimized_session: bool
    cases: Sequence[Case]
    signature: dict[str, list[Slot]]
    outputs: Mapping[str, list[Array]]
    refusals: Sequence[CaseResult]

    @property
    def names(self) -> list[str]:
        """The names of the outputs."""
        return [slot.name for slot in self.signature["outputs"]]


def _run_original(
    file: Path, optimized_session: bool, make: Callable[[ort.InferenceSession], Iterable[Case]]
) -> _Original:
    """Run the original on the cases that ``make`` gives for its session."""
    session = open_session(file, optimized=optimized_session)
    cases = list(make(session))
    outputs: dict[str, list[Array]] = {}
    refusals: list[CaseResult] = []
    for case in cases:
        try:
            outputs[case.name] = run(session, case.inputs)
        except ExportError as error:
            if case.name == EXAMPLE:
                raise
            note = f"{case.name}: skipped, the original model refuses this input ({error})"
            refusals.append(CaseResult(case, notes=(note,), refused=True))
            continue
        if case.name == EXAMPLE:
            require_deterministic(session, case.inputs, outputs[case.name])
    return _Original(optimized_session, cases, signature_of(session), outputs, refusals)


def _run_optimized(original: _Original, file: Path) -> dict[str, list[Array] | ExportError]:
    """By case, the outputs of the optimized file, or the error if it does not run."""
    session = open_session(file, optimized=original.optimized_session)
    require_same_signature(original.signature, signature_of(session))
    found: dict[str, list[Array] | ExportError] = {}
    for case in original.cases:
        if case.name not in original.outputs:
            continue
        try:
            found[case.name] = run(session, case.inputs)
        except ExportError as error:
            found[case.name] = error
    return found


def _described(reference: Reference | None, rules: Rules) -> str:
    against = "float64" if reference else "original file"
    if rules.bitwise:
        return f"equal bits, errors against {against}"
    return f"{against}, within what rounding can do"
