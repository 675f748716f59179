"""Does the optimised file compute what the original does? Both in onnxruntime, against float64.

Every case is an input; on each, both files run at onnxruntime's default optimisation and with optimisation
off. What is asked depends on what the lowering claims:

    bitwise     every output has the same bits (any NaN equals any NaN)
    otherwise   non-finite elements agree, and with a float64 reference ``ref`` of the original model

                    max|optimised - ref| <= FACTOR * max|original - ref| + ULPS * ulp(max|ref|)

                so the optimised file may not be further from the truth than a small multiple of the original
                float32 file; without a reference, |optimised - original| <= RTOL * max|original| + ATOL.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from export.cases import EXAMPLE, make_cases
from export.session import Array, open_session, run
from fx_passes.errors import ExportError, UsageError

log = logging.getLogger(__name__)

FACTOR = 4.0
ULPS = 8.0
RTOL = 1e-5
ATOL = 1e-7

Reference = Callable[[Sequence[Array]], Sequence[Array]]


@dataclass(frozen=True)
class OutputError:
    """The worst of one output over all cases: errors against the reference or the original, the bound."""

    name: str
    max_abs_error: float
    baseline_error: float
    bound: float


@dataclass(frozen=True)
class Mismatch:
    """One element that differs too much, and the tolerance that would have been needed."""

    output: str
    case: str
    optimized_session: bool
    place: tuple[int, ...]
    expected: float
    found: float
    needed: float
    allowed: float
    detail: str = ""
    site: str | None = None

    def __str__(self) -> str:
        level = "default optimisation" if self.optimized_session else "optimisation off"
        site = f"; caused by site {self.site}" if self.site else ""
        if self.detail:
            return f"output `{self.output}` ({self.case}, {level}): {self.detail}{site}"
        return (
            f"output `{self.output}` at {list(self.place)} ({self.case}, {level}): "
            f"expected {self.expected:.9g}, found {self.found:.9g}; "
            f"a tolerance of {self.needed:.3g} would be needed, {self.allowed:.3g} is allowed{site}"
        )


@dataclass(frozen=True)
class Equivalence:
    """The verdict: how it was checked, the error of each output, and the first mismatch if there is one."""

    passed: bool
    cases: int
    bitwise: bool
    reference: str
    outputs: tuple[OutputError, ...]
    mismatch: Mismatch | None = None
    notes: tuple[str, ...] = ()
    failing_inputs: tuple[Array, ...] | None = field(default=None, repr=False, compare=False)

    def to_json(self) -> dict[str, Any]:
        """The "equivalence" object of the JSON contract."""
        return {
            "passed": self.passed,
            "cases": self.cases,
            "bitwise": self.bitwise,
            "reference": self.reference,
            "outputs": [vars(output) for output in self.outputs],
            "mismatch": None if self.mismatch is None else str(self.mismatch),
            "site": None if self.mismatch is None else self.mismatch.site,
            "notes": list(self.notes),
        }


def check_equivalence(
    baseline: Path | str,
    optimized: Path | str,
    *,
    example_inputs: Sequence[Array] | None = None,
    reference: Reference | None = None,
    require_bitwise: bool = False,
    progress: Callable[[str], None] | None = None,
) -> Equivalence:
    """Compare two ONNX files on inputs made for the purpose.

    Args:
        baseline, optimized: the files.
        example_inputs: arrays in the order of the inputs; they give open sizes, and the range of integers.
        reference: the original model in float64: arrays in, arrays out; None where it cannot be run.
        require_bitwise: ask for equal bits. Without it, equal bits pass too, and are reported.
        progress: called with the name of each case.

    Raises:
        ExportError: onnxruntime does not accept a file, or the original cannot run on its own inputs.
        UsageError: the files do not have the same inputs and outputs.
    """
    files = [Path(baseline), Path(optimized)]
    pairs = {level: [open_session(path, optimized=level) for path in files] for level in (True, False)}
    names = _require_same_signature(*pairs[True])
    tally = {name: _Tally() for name in names}
    notes: list[str] = []
    count, bitwise, mismatch, failing = 0, True, None, None
    for case, inputs in make_cases(pairs[True][0], example_inputs):
        if progress:
            progress(case)
        expected = _reference_outputs(reference, inputs, len(names), case, notes)
        if expected is None:
            reference = None
        for level, sessions in pairs.items():
            try:
                original = run(sessions[0], inputs)
            except ExportError as error:
                if case == EXAMPLE:
                    raise
                notes.append(f"{case}: skipped, the original model refuses this input ({error})")
                break
            found = _run_optimized(sessions[1], inputs)
            if isinstance(found, str):
                mismatch = mismatch or Mismatch(names[0], case, level, (), 0, 0, 0, 0, found)
                failing = failing or tuple(inputs)
                continue
            for i, name in enumerate(names):
                ideal = None if expected is None else expected[i]
                here = _compare(name, case, level, original[i], found[i], ideal, require_bitwise)
                bitwise &= here.bitwise
                tally[name].add(here)
                if here.mismatch and mismatch is None:
                    mismatch, failing = here.mismatch, tuple(inputs)
        else:
            count += 1
    return Equivalence(
        passed=mismatch is None,
        cases=count,
        bitwise=bitwise and mismatch is None,
        reference=_describe(reference, require_bitwise),
        outputs=tuple(tally[name].result(name) for name in names),
        mismatch=mismatch,
        notes=tuple(notes),
        failing_inputs=failing,
    )


@dataclass
class _Comparison:
    bitwise: bool
    error: float
    baseline_error: float
    bound: float
    mismatch: Mismatch | None = None


class _Tally:
    """The comparison of one output that came closest to its bound, or went furthest beyond."""

    def __init__(self) -> None:
        self.worst = _Comparison(True, 0.0, 0.0, 0.0)
        self.ratio = -1.0

    def add(self, comparison: _Comparison) -> None:
        ratio = comparison.error / comparison.bound if comparison.bound else comparison.error * 1e300
        if ratio > self.ratio or (comparison.mismatch and not self.worst.mismatch):
            self.worst, self.ratio = comparison, ratio

    def result(self, name: str) -> OutputError:
        worst = self.worst
        return OutputError(name, worst.error, worst.baseline_error, worst.bound)


def _compare(
    name: str,
    case: str,
    level: bool,
    original: Array,
    found: Array,
    ideal: Array | None,
    require_bitwise: bool,
) -> _Comparison:
    def mismatch(place: tuple[int, ...], needed: float, allowed: float, detail: str = "") -> Mismatch:
        expected, got = (float(a[place]) if not detail else 0.0 for a in (original, found))
        return Mismatch(name, case, level, place, expected, got, needed, allowed, detail)

    if original.shape != found.shape or original.dtype != found.dtype:
        detail = f"expected {original.dtype}{list(original.shape)}, found {found.dtype}{list(found.shape)}"
        return _Comparison(False, float("inf"), 0.0, 0.0, mismatch((), 0.0, 0.0, detail))
    same = _same_bits(original, found)
    if not np.issubdtype(original.dtype, np.floating):
        difference = (original != found).astype(np.float64)
        worst = _Comparison(bool(same.all()), float(difference.max(initial=0)), 0.0, 0.0)
        if not same.all():
            place = _first(~same)
            gap = abs(float(original[place]) - float(found[place]))
            worst.mismatch = mismatch(place, gap, 0.0)
        return worst
    if original.size == 0:
        return _Comparison(True, 0.0, 0.0, 0.0)
    finite = np.isfinite(original)
    wide = original.astype(np.float64), found.astype(np.float64)
    with np.errstate(invalid="ignore"):
        apart = np.where(finite & np.isfinite(found), np.abs(wide[1] - wide[0]), 0.0)
    error, baseline_error, bound, distance = _bounds(wide, ideal, finite, apart, original.dtype)
    result = _Comparison(bool(same.all()), error, baseline_error, bound)
    special = (finite != np.isfinite(found)) | (~finite & ~same)
    if special.any():
        result.mismatch = mismatch(_first(special), float("inf"), 0.0 if require_bitwise else bound)
    elif require_bitwise and not result.bitwise:
        place = _first(~same)
        result.mismatch = mismatch(place, float(apart[place]), 0.0)
    elif not result.bitwise and error > bound:
        place = tuple(int(i) for i in np.unravel_index(int(distance.argmax()), distance.shape))
        result.mismatch = mismatch(place, error, bound)
    return result


def _bounds(
    wide: tuple[Array, Array], ideal: Array | None, finite: Array, apart: Array, dtype: Any
) -> tuple[float, float, float, Array]:
    """(error of the optimised, error of the original, what is allowed, where the error is)."""
    scale = float(np.abs(wide[0][finite]).max(initial=0.0))
    if ideal is None or ideal.shape != wide[0].shape:
        return float(apart.max()), 0.0, RTOL * scale + ATOL, apart
    known = finite & np.isfinite(ideal) & np.isfinite(wide[1])
    errors = [np.where(known, np.abs(np.where(known, w, 0) - np.where(known, ideal, 0)), 0.0) for w in wide]
    baseline_error = float(errors[0].max())
    ulp = float(np.spacing(np.asarray(scale, dtype=dtype)))
    return float(errors[1].max()), baseline_error, FACTOR * baseline_error + ULPS * ulp, errors[1]


def _same_bits(a: Array, b: Array) -> Array:
    if not np.issubdtype(a.dtype, np.floating):
        return np.asarray(a == b)
    return np.asarray((a == b) & (np.signbit(a) == np.signbit(b)) | (np.isnan(a) & np.isnan(b)))


def _first(mask: Array) -> tuple[int, ...]:
    return tuple(int(i) for i in np.argwhere(mask)[0])


def _require_same_signature(a: ort.InferenceSession, b: ort.InferenceSession) -> list[str]:
    for kind, first, second in (
        ("inputs", a.get_inputs(), b.get_inputs()),
        ("outputs", a.get_outputs(), b.get_outputs()),
    ):
        ours, theirs = ([(s.name, s.type) for s in slots] for slots in (first, second))
        if [t for _, t in ours] != [t for _, t in theirs] or (kind == "inputs" and ours != theirs):
            raise UsageError(f"the files have different {kind}: {ours} and {theirs}")
    return [slot.name for slot in a.get_outputs()]


def _run_optimized(session: ort.InferenceSession, inputs: Sequence[Array]) -> list[Array] | str:
    try:
        return run(session, inputs)
    except ExportError as error:
        return f"the original runs, the optimised file does not: {error}"


def _reference_outputs(
    reference: Reference | None, inputs: Sequence[Array], count: int, case: str, notes: list[str]
) -> list[Array] | None:
    if reference is None:
        return None
    try:
        outputs = [np.asarray(output, dtype=np.float64) for output in reference(inputs)]
        if len(outputs) != count:
            raise ValueError(f"it has {len(outputs)} tensors as outputs, the file has {count}")
        return outputs
    except Exception as error:  # the model's own code, in a precision it may not be made for
        reason = str(error).strip().splitlines()
        notes.append(
            f"{case}: the original cannot be run in float64 "
            f"({type(error).__name__}: {reason[0][:160] if reason else ''}); "
            f"from here on compared with the original file at rtol {RTOL:g}, atol {ATOL:g}"
        )
        return None


def _describe(reference: Reference | None, require_bitwise: bool) -> str:
    against = "float64" if reference else f"original file, rtol {RTOL:g}, atol {ATOL:g}"
    return f"equal bits, errors against {against}" if require_bitwise else against
