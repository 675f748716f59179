"""Does the optimised file compute what the original does? Both in onnxruntime, against float64.

Every case is an input. On each, both files run at onnxruntime's default optimisation and with optimisation
off, and every output is compared (``compare.py`` says how). One session is open at a time: weights may be
large.
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
from export.compare import Mismatch, OutputError, Tally, compare, lost_number, overflow
from export.reference import FAR, Float64Reference
from export.session import Array, open_session, run
from export.weight_noise import WeightNoise
from fx_passes.asked_sizes import OpenSizes
from fx_passes.errors import ExportError, NotEquivalentError

log = logging.getLogger(__name__)

Reference = Callable[[Sequence[Array]], Sequence[Array]]


@dataclass(frozen=True)
class Equivalence:
    """The verdict: how it was checked, the error of each output, and the first mismatch if there is one.

    ``sensitive`` says which output jumps where rounding turns a decision: then no rounding but its own will
    do, and whether the files happened to agree here says nothing of another processor. ``sizes`` has the
    shapes of all inputs in each case that has others than the example.
    """

    passed: bool
    cases: int
    bitwise: bool
    reference: str
    outputs: tuple[OutputError, ...]
    mismatch: Mismatch | None = None
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
    files = Path(baseline), Path(optimized)
    judge = _Judge(files[0], reference, require_bitwise, finite_only)
    for level in (True, False):
        session = open_session(files[0], optimized=level)
        if level:
            cases = list(make_cases(session, example_inputs, special=non_finite, sizes=sizes))
            signature = _signature(session)
        originals: dict[str, list[Array] | None] = {}
        for case, inputs in cases:
            originals[case] = judge.original(session, case, inputs, level)
        del session
        session = open_session(files[1], optimized=level)
        _require_same_signature(signature, _signature(session))
        found = {case: _run_optimized(session, x) for case, x in cases if originals[case] is not None}
        del session
        for case, inputs in cases:
            if (original := originals.pop(case)) is not None:
                if progress:
                    progress(case)
                judge.compare(case, inputs, level, original, found.pop(case))
        judge.noise = None  # it may hold a session
    return judge.verdict(cases)


class _Judge:
    """What is found out, case by case."""

    def __init__(
        self, baseline: Path, reference: Reference | None, require_bitwise: bool, finite_only: bool
    ) -> None:
        self.baseline, self.reference = baseline, reference
        self.require_bitwise, self.finite_only = require_bitwise, finite_only
        self.names: list[str] = []
        self.tally: dict[str, Tally] = {}
        self.notes: list[str] = []
        self.skipped: set[str] = set()
        self.bitwise = True
        self.mismatch: Mismatch | None = None
        self.failing: tuple[Array, ...] | None = None
        self.sensitive: str | None = None
        self.ideals: dict[str, list[Array] | None] = {}
        self.spreads: dict[str, list[float]] = {}
        self.noise: WeightNoise | None = None

    def original(
        self, session: ort.InferenceSession, case: str, inputs: Sequence[Array], level: bool
    ) -> list[Array] | None:
        """The outputs of the original, or None where it refuses the input, as a note says."""
        self.names = [slot.name for slot in session.get_outputs()]
        self.tally = self.tally or {name: Tally() for name in self.names}
        try:
            outputs = run(session, inputs)
        except ExportError as error:
            if case == EXAMPLE:
                raise
            self.skipped.add(case)
            self.note(f"{case}: skipped, the original model refuses this input ({error})")
            return None
        if case == EXAMPLE:
            _require_deterministic(session, inputs, outputs)
        return outputs

    def compare(
        self, case: str, inputs: list[Array], level: bool, original: list[Array], found: list[Array] | str
    ) -> None:
        """Compare all outputs of one run of both files."""
        if isinstance(found, str):
            self._fails(Mismatch(self.names[0], case, level, (), 0, 0, 0, 0, found), inputs)
            return
        ideals = self._ideals(case, inputs)
        self._look_for_jumps(case, inputs, level)
        for i, name in enumerate(self.names):
            ideal = None if ideals is None else ideals[i]
            here = compare(
                name,
                case,
                level,
                original[i],
                found[i],
                ideal,
                self.require_bitwise,
                spread=lambda i=i: self._spread(case, inputs)[i],  # type: ignore[misc]
                finite_only=self.finite_only,
            )
            if self.finite_only:
                self.note(overflow(name, case, original[i]))
            self.note(lost_number(name, case, original[i], ideal))
            self.bitwise &= here.bitwise
            self.tally[name].add(here)
            if here.mismatch:
                self._fails(here.mismatch, inputs)

    def verdict(self, cases: Sequence[tuple[str, list[Array]]]) -> Equivalence:
        """All of it."""
        tried = {case: tuple(x.shape for x in inputs) for case, inputs in cases if case not in self.skipped}
        return Equivalence(
            passed=self.mismatch is None and self.sensitive is None,
            cases=len(tried),
            bitwise=self.bitwise and self.mismatch is None,
            reference=_describe(self.reference, self.require_bitwise),
            outputs=tuple(self.tally[name].result(name) for name in self.names),
            mismatch=self.mismatch,
            notes=tuple(self.notes),
            sizes={case: shapes for case, shapes in tried.items() if shapes != tried.get(EXAMPLE)},
            failing_inputs=self.failing,
            sensitive=self.sensitive,
        )

    def note(self, text: str | None) -> None:
        """Say it, once."""
        if text and text not in self.notes:
            self.notes.append(text)

    def _fails(self, mismatch: Mismatch, inputs: Sequence[Array]) -> None:
        if self.mismatch is None:
            self.mismatch, self.failing = mismatch, tuple(inputs)

    def _ideals(self, case: str, inputs: Sequence[Array]) -> list[Array] | None:
        """The outputs in float64, computed once for a case."""
        if self.reference is not None and case not in self.ideals:
            found = _reference_outputs(self.reference, inputs, len(self.names), case, self.notes)
            self.reference = None if found is None else self.reference
            self.ideals[case] = found
        return self.ideals.get(case)

    def _look_for_jumps(self, case: str, inputs: Sequence[Array], level: bool) -> None:
        """Whether rounding turns a decision of the model that an output shows; looked for once a case."""
        if self.require_bitwise or self.sensitive or not level:
            return
        if not isinstance(self.reference, Float64Reference) or not _all_finite(inputs):
            return
        for name, jumps in zip(self.names, self.reference.decides(inputs), strict=True):
            if jumps:
                self.sensitive = (
                    f"output `{name}` ({case}) jumps where rounding turns a decision of the model: "
                    f"errors {FAR:g} times as large as rounding were put in"
                )
                return

    def _spread(self, case: str, inputs: Sequence[Array]) -> list[float]:
        """How far rounding moves each output, measured once for a case."""
        if case not in self.spreads:
            self.spreads[case] = self._measured(inputs)
        return self.spreads[case]

    def _measured(self, inputs: Sequence[Array]) -> list[float]:
        if isinstance(self.reference, Float64Reference):
            return self.reference.spread(inputs)
        if self.noise is None:
            self.noise = WeightNoise(self.baseline)
        return self.noise.spread(inputs)


def _all_finite(inputs: Sequence[Array]) -> bool:
    return all(bool(np.isfinite(array).all()) for array in inputs if array.dtype.kind == "f")


@dataclass(frozen=True)
class _Slot:
    """An input or output in plain values: what onnxruntime gives would keep its session, and the weights."""

    name: str
    type: str
    shape: tuple[Any, ...]


def _signature(session: ort.InferenceSession) -> dict[str, list[_Slot]]:
    slots = {"inputs": session.get_inputs(), "outputs": session.get_outputs()}
    return {kind: [_Slot(s.name, s.type, tuple(s.shape)) for s in side] for kind, side in slots.items()}


def _require_same_signature(first: dict[str, list[_Slot]], second: dict[str, list[_Slot]]) -> None:
    for kind in first:
        ours, theirs = ([(s.name, s.type) for s in side[kind]] for side in (first, second))
        if ours != theirs:
            raise NotEquivalentError(f"not equivalent: the files have different {kind}: {ours} and {theirs}")
    for before, after in zip(first["inputs"], second["inputs"], strict=True):
        for dim, (size, other) in enumerate(zip(before.shape, after.shape, strict=False)):
            if isinstance(other, int) and size != other:
                was = size if isinstance(size, int) else "open"
                raise NotEquivalentError(
                    f"not equivalent: size {dim} of input `{before.name}` is {was} in the original, and "
                    f"fixed to {other} in the optimised file"
                )


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
    against = "float64" if reference else "original file"
    if require_bitwise:
        return f"equal bits, errors against {against}"
    return f"{against}, within what rounding can do"
