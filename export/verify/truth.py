"""The original model in float64: its outputs for each case, how far rounding moves them, and jumps."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from export.runtime.session import Array
from export.verify.cases import Case
from export.verify.file_reference import FileReference
from export.verify.reference import DRAWS, FAR, Float64Reference
from export.verify.weight_noise import WeightNoise

Reference = Callable[[Sequence[Array]], Sequence[Array]]


class Truth:
    """Asks a reference once for each case, and keeps the answers.

    A reference that fails on a case is not asked again; ``failed`` then holds a note.

    Args:
        baseline: the original file. Its weights are moved if there is no reference in float64.
        reference: the original model in float64: arrays in, arrays out. None: it cannot run.
    """

    def __init__(self, baseline: Path, reference: Reference | None) -> None:
        self.baseline, self.reference = baseline, reference
        self.failed: str | None = None
        self._ideals: dict[str, list[Array] | None] = {}
        self._spreads: dict[str, list[float]] = {}
        self._whole: set[str] = set()  # the cases whose spreads are as large as they get
        self._noise: WeightNoise | None = None
        self._jumped = self._turned = False

    def ideals(self, case: Case, count: int) -> list[Array] | None:
        """The ``count`` outputs in float64, or None."""
        if self.reference is not None and case.name not in self._ideals:
            self._ideals[case.name] = self._asked(self.reference, case, count)
        return self._ideals.get(case.name)

    def spread(self, case: Case, output: int, enough: float = math.inf) -> float:
        """How far rounding moves an output. Less is looked at if it is moved as far as ``enough`` already.

        Raises:
            ExportError: there is no float64, and onnxruntime cannot run a copy of the original.
        """
        known = self._spreads.get(case.name)
        if known is None or (known[output] < enough and case.name not in self._whole):
            wanted = {output: enough} if known is None and enough < math.inf else None
            known = self._spreads[case.name] = self._measured(case.inputs, wanted)
            self._whole.update((case.name,) if wanted is None else ())
        return known[output]

    def jump(self, case: Case, names: Sequence[str]) -> str | None:
        """The output that jumps if rounding turns a decision of the model. None after the first was found.

        Args:
            names: the names of the outputs.
        """
        decides = getattr(self.reference, "decides", None)
        if self._jumped or decides is None or not _all_finite(case.inputs):
            return None
        for name, jumps in zip(names, decides(case.inputs), strict=True):
            if jumps:
                self._jumped = True
                return _jumps(name, case)
        return None

    def turned(self, case: Case, names: Sequence[str], output: int, dtype: np.dtype) -> str | None:
        """Why an output differs, if it jumps: ``jump`` looks once, and may miss it. None: it does not jump,
        or it is a floating-point number and torch has no float64 of it, so that this is not known. Asked for
        the first difference only."""
        asked, self._turned, jumps = self._turned, True, False
        if asked or self._jumped or not _all_finite(case.inputs):
            return None
        if isinstance(self.reference, Float64Reference):
            jumps = self.reference.decides(case.inputs, DRAWS)[output]
        elif dtype.kind != "f":  # an integer that moves at all has jumped
            jumps = self._moved().far(case.inputs, FAR)[output] > 0
        return _jumps(names[output], case) if jumps else None

    def close(self) -> None:
        """Close the session of the copy with moved weights. It opens again when it is needed."""
        self._noise = None

    def _asked(self, reference: Reference, case: Case, count: int) -> list[Array] | None:
        try:
            outputs = [np.asarray(output, dtype=np.float64) for output in reference(case.inputs)]
            if len(outputs) != count:
                raise ValueError(f"it has {len(outputs)} tensors as outputs, the file has {count}")
            return outputs
        except Exception as error:  # noqa: BLE001 - the model's own code, in a precision it may not be made for
            reason = str(error).strip().splitlines()
            self.failed = (
                f"{case.name}: the original cannot be run in float64 "
                f"({type(error).__name__}: {reason[0][:160] if reason else ''}); "
                "from here on compared with the original file"
            )
            self.reference = None
            return None

    def _measured(self, inputs: Sequence[Array], enough: Mapping[int, float] | None) -> list[float]:
        if isinstance(self.reference, Float64Reference):
            return self.reference.spread(inputs)
        share = self.reference.share if isinstance(self.reference, FileReference) else 1.0
        wanted = enough and {output: distance / share for output, distance in enough.items()}
        return [share * far for far in self._moved().spread(inputs, wanted)]

    def _moved(self) -> WeightNoise:
        if self._noise is None:
            self._noise = WeightNoise(self.baseline)
        return self._noise


def _jumps(name: str, case: Case) -> str:
    return (
        f"output `{name}` ({case.name}) jumps where rounding turns a decision of the model: "
        f"errors {FAR:g} times as large as rounding were put in"
    )


def _all_finite(inputs: Sequence[Array]) -> bool:
    return all(bool(np.isfinite(array).all()) for array in inputs if array.dtype.kind == "f")
