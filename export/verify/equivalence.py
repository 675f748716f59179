"""Does the optimized file compute what the original does? onnxruntime runs both, and float64 is the
reference.

Every case is an input. Both files run on each, with the optimization of onnxruntime on and off, and in the
target if that is another one. Every output is compared (``compare_output.py``). Only one session is open at a
time: weights may be large.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import onnxruntime as ort

from export.runtime.session import Array, open_session, run
from export.runtime.target import Target, parse_target
from export.verify.cases import EXAMPLE, Case, make_cases
from export.verify.compare_output import Rules
from export.verify.evidence import CaseResult, Equivalence, Outputs, compare_case, verdict
from export.verify.level import Level, run_cases
from export.verify.signature import Slot, require_deterministic, require_same_signature, signature_of
from export.verify.truth import Reference, Truth
from fx_passes.capture.asked_sizes import OpenSizes
from fx_passes.errors import ExportError

__all__ = ["Equivalence", "check_equivalence"]

OFF = Level(optimized=False)
Ran = Mapping[str, list[Array] | ExportError]


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
    target: Target | str = "onnxruntime",
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
        target: another runtime or provider, as for ``--target``. Both files run there, too, and must agree
            within the same bounds.
        progress: called with the name of each case, once for each optimization level, and for the target.

    Raises:
        ExportError: onnxruntime or the target does not accept a file, the original does not run on its own
            inputs, or it gives another output each time.
        NotEquivalentError: the files do not have the same inputs and outputs.
        UsageError: the example inputs do not fit the files, or there is no such target.
    """
    there = target if isinstance(target, Target) else parse_target(target)
    check = _Check(
        Path(baseline),
        Path(optimized),
        Rules(require_bitwise, finite_only),
        Truth(Path(baseline), reference),
        progress or (lambda case: None),
    )
    make = partial(make_cases, example_inputs=example_inputs, special=non_finite, sizes=sizes)
    first = _compare_level(check, Level(), make)
    results = [*first.results, *_compare_level(check, OFF, lambda session: first.cases).results]
    described = _described(check.truth.reference, check.rules)
    if not there.is_usual:
        results += _compare_in_target(check, there, first)
        described += f", in onnxruntime and in {there}"
    return verdict(results, first.cases, first.names, described)


@dataclass(frozen=True)
class _Check:
    """What all levels share."""

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
    check: _Check, level: Level, make: Callable[[ort.InferenceSession], Iterable[Case]]
) -> _Level:
    """Run both files, one after the other, in sessions of one level, and compare case by case.

    Args:
        make: gives the cases for a session of the original.
    """
    original = _run_original(check.baseline, level, make)
    found = _run_optimized(original, level, check.optimized)
    names = [slot.name for slot in original.signature["outputs"]]
    results = _compared(check, level, _Both(original.cases, names, original.found, found))
    return _Level(original.cases, names, results)


def _compare_in_target(check: _Check, target: Target, first: _Level) -> list[CaseResult]:
    """Run both files in the target, on the cases that onnxruntime takes."""
    cases = [result.case for result in first.results if not result.refused]
    original = run_cases(target.open(check.baseline).run, cases)
    found = run_cases(target.open(check.optimized).run, cases)
    return _compared(check, Level(target=target), _Both(cases, first.names, original, found))


@dataclass(frozen=True)
class _Both:
    """By case, what both files gave. ``names`` are those of the outputs."""

    cases: Sequence[Case]
    names: Sequence[str]
    original: Ran
    found: Ran


def _compared(check: _Check, level: Level, both: _Both) -> list[CaseResult]:
    """The result of each case.

    Raises:
        ExportError: the original does not run on the example.
    """
    results = []
    for case in both.cases:
        original = both.original[case.name]
        if isinstance(original, ExportError):
            results.append(_refused(case, level, original))
            continue
        check.progress(case.name if level == Level() else f"{case.name}, {level}")
        outputs = Outputs(case, level, original, both.found[case.name])
        results.append(compare_case(outputs, both.names, check.rules, check.truth))
    check.truth.close()
    return results


def _refused(case: Case, level: Level, error: ExportError) -> CaseResult:
    """The result of a case that the original does not take."""
    if case.name == EXAMPLE:
        raise error
    where = "" if level.target is None else f" {level}"
    note = f"{case.name}: skipped, the original model refuses this input{where} ({error})"
    return CaseResult(case, notes=(note,), refused=True)


@dataclass(frozen=True)
class _Original:
    """The results of the original in one session, as plain values: the session is closed.

    Args:
        cases: all inputs.
        signature: names, types and sizes of the inputs and outputs.
        found: by case, the outputs or the error.
    """

    cases: Sequence[Case]
    signature: dict[str, list[Slot]]
    found: Ran


def _run_original(
    file: Path, level: Level, make: Callable[[ort.InferenceSession], Iterable[Case]]
) -> _Original:
    """Run the original on the cases that ``make`` gives for its session."""
    session = open_session(file, optimized=level.optimized)
    cases = list(make(session))
    found = run_cases(partial(run, session), cases)
    example = found[EXAMPLE]
    if isinstance(example, ExportError):
        raise example
    require_deterministic(session, cases[0].inputs, example)
    return _Original(cases, signature_of(session), found)


def _run_optimized(original: _Original, level: Level, file: Path) -> Ran:
    """By case, the outputs of the optimized file, or the error if it does not run."""
    session = open_session(file, optimized=level.optimized)
    require_same_signature(original.signature, signature_of(session))
    accepted = [case for case in original.cases if not isinstance(original.found[case.name], ExportError)]
    return run_cases(partial(run, session), accepted)


def _described(reference: Reference | None, rules: Rules) -> str:
    against = "float64" if reference else "original file"
    if rules.bitwise:
        return f"equal bits, errors against {against}"
    return f"{against}, within what rounding can do"
