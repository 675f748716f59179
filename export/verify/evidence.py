"""What the runs of an original and its optimised file say, put together case by case."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from export.runtime.session import Array, run
from export.verify.cases import EXAMPLE
from export.verify.compare import Mismatch, OutputError, Tally, compare, lost_number, overflow
from export.verify.reference import FAR, Float64Reference
from export.verify.signature import require_deterministic
from export.verify.weight_noise import WeightNoise
from fx_passes.errors import ExportError

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


class Evidence:
    """What is found out of an original and its optimised file, case by case.

    Args:
        baseline: the original.
        reference, require_bitwise, finite_only: as for ``check_equivalence``.
    """

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
            require_deterministic(session, inputs, outputs)
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
    except Exception as error:  # noqa: BLE001 - the model's own code, in a precision it may not be made for
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
