"""Does the optimised file compute what the original does? Both in onnxruntime, against float64.

Every case is an input; on each, both files run at onnxruntime's default optimisation and with optimisation
off, and every output is compared (``compare.py`` says how).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from export.cases import EXAMPLE, make_cases
from export.compare import RTOL, Mismatch, OutputError, Tally, compare, lost_number, overflow
from export.session import Array, open_session, run
from fx_passes.asked_sizes import OpenSizes
from fx_passes.errors import ExportError, NotEquivalentError

log = logging.getLogger(__name__)

Reference = Callable[[Sequence[Array]], Sequence[Array]]


@dataclass(frozen=True)
class Equivalence:
    """The verdict: how it was checked, the error of each output, and the first mismatch if there is one;
    ``sizes``: the shapes of all inputs in each case that has others than the example."""

    passed: bool
    cases: int
    bitwise: bool
    reference: str
    outputs: tuple[OutputError, ...]
    mismatch: Mismatch | None = None
    notes: tuple[str, ...] = ()
    sizes: Mapping[str, tuple[tuple[int, ...], ...]] = field(default_factory=dict)
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
            "sizes": {case: [list(shape) for shape in shapes] for case, shapes in self.sizes.items()},
        }


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
        example_inputs: arrays in the order of the inputs; they give open sizes, and the range of integers.
        reference: the original model in float64: arrays in, arrays out; None where it cannot be run.
        require_bitwise: ask for equal bits. Without it, equal bits pass too, and are reported.
        non_finite: add a case in which inputs hold Inf and NaN.
        finite_only: where the original overflows, Inf and NaN may reach more elements of the optimised file.
        sizes: what the model needs of its open sizes; without it, other sizes are guesses.
        progress: called with the name of each case.

    Raises:
        ExportError: onnxruntime does not accept a file, or the original cannot run on its own inputs, or
        gives
            another output each time.
        NotEquivalentError: the files do not have the same inputs and outputs.
        UsageError: the example inputs do not fit the files.
    """
    files = [Path(baseline), Path(optimized)]
    pairs = {level: [open_session(path, optimized=level) for path in files] for level in (True, False)}
    names = _require_same_signature(*pairs[True])
    tally = {name: Tally() for name in names}
    notes: list[str] = []
    scales: dict[str, float] = {}
    tried: dict[str, tuple[tuple[int, ...], ...]] = {}
    bitwise, mismatch, failing = True, None, None
    for case, inputs in make_cases(pairs[True][0], example_inputs, special=non_finite, sizes=sizes):
        if progress:
            progress(case)
        expected = _reference_outputs(reference, inputs, len(names), case, notes)
        if expected is None:
            reference = None
        for level, sessions in pairs.items():
            try:
                original = run(sessions[0], inputs)
                if case == EXAMPLE:
                    _require_deterministic(sessions[0], inputs, original)
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
                if case == "uniform":  # the inputs of "constant" are as large
                    scales[name] = _largest(original[i])
                here = compare(
                    name,
                    case,
                    level,
                    original[i],
                    found[i],
                    ideal,
                    require_bitwise,
                    scale=scales.get(name, 0.0) if case == "constant" else 0.0,
                    finite_only=finite_only,
                )
                if finite_only and (beyond := overflow(name, case, original[i])) and beyond not in notes:
                    notes.append(beyond)
                bitwise &= here.bitwise
                tally[name].add(here)
                if (lost := lost_number(name, case, original[i], ideal)) and lost not in notes:
                    notes.append(lost)
                if here.mismatch and mismatch is None:
                    mismatch, failing = here.mismatch, tuple(inputs)
        else:
            tried[case] = tuple(array.shape for array in inputs)
    return Equivalence(
        passed=mismatch is None,
        cases=len(tried),
        bitwise=bitwise and mismatch is None,
        reference=_describe(reference, require_bitwise),
        outputs=tuple(tally[name].result(name) for name in names),
        mismatch=mismatch,
        notes=tuple(notes),
        sizes={case: shapes for case, shapes in tried.items() if shapes != tried.get(EXAMPLE)},
        failing_inputs=failing,
    )


def _largest(output: Array) -> float:
    finite = output[np.isfinite(output)] if np.issubdtype(output.dtype, np.floating) else output[:0]
    return float(np.abs(finite).max(initial=0.0))


def _require_same_signature(a: ort.InferenceSession, b: ort.InferenceSession) -> list[str]:
    for kind, first, second in (
        ("inputs", a.get_inputs(), b.get_inputs()),
        ("outputs", a.get_outputs(), b.get_outputs()),
    ):
        ours, theirs = ([(s.name, s.type) for s in slots] for slots in (first, second))
        if ours != theirs:
            raise NotEquivalentError(f"not equivalent: the files have different {kind}: {ours} and {theirs}")
    for before, after in zip(a.get_inputs(), b.get_inputs(), strict=True):
        for dim, (size, other) in enumerate(zip(before.shape, after.shape, strict=False)):
            if isinstance(other, int) and size != other:
                was = size if isinstance(size, int) else "open"
                raise NotEquivalentError(
                    f"not equivalent: size {dim} of input `{before.name}` is {was} in the original, and "
                    f"fixed to {other} in the optimised file"
                )
    return [slot.name for slot in a.get_outputs()]


def _require_deterministic(
    session: ort.InferenceSession, inputs: Sequence[Array], outputs: Sequence[Array]
) -> None:
    for slot, first, second in zip(session.get_outputs(), outputs, run(session, inputs), strict=True):
        if not np.array_equal(first, second, equal_nan=first.dtype.kind == "f"):
            raise ExportError(
                f"the original gives another output `{slot.name}` each time it runs on the same input, and "
                "cannot be compared with anything; does it draw random numbers?"
            )


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
            "from here on compared with the original file"
        )
        return None


def _describe(reference: Reference | None, require_bitwise: bool) -> str:
    against = "float64" if reference else f"original file, rtol {RTOL['float32']:g} in float32"
    return f"equal bits, errors against {against}" if require_bitwise else against
