"""What two files have to have in common before any number is compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime as ort

from export.session import Array, run
from fx_passes.errors import ExportError, NotEquivalentError


def require_same_signature(
    inputs: Sequence[Any], outputs: Sequence[Any], other_inputs: Sequence[Any], other_outputs: Sequence[Any]
) -> None:
    both = {"inputs": (inputs, other_inputs), "outputs": (outputs, other_outputs)}
    for kind, slots in both.items():
        ours, theirs = ([(s.name, s.type) for s in side] for side in slots)
        if ours != theirs:
            raise NotEquivalentError(f"not equivalent: the files have different {kind}: {ours} and {theirs}")
    for before, after in zip(inputs, other_inputs, strict=True):
        for dim, (size, other) in enumerate(zip(before.shape, after.shape, strict=False)):
            if isinstance(other, int) and size != other:
                was = size if isinstance(size, int) else "open"
                raise NotEquivalentError(
                    f"not equivalent: size {dim} of input `{before.name}` is {was} in the original, and "
                    f"fixed to {other} in the optimised file"
                )


def require_deterministic(
    session: ort.InferenceSession, inputs: Sequence[Array], outputs: Sequence[Array]
) -> None:
    for slot, first, second in zip(session.get_outputs(), outputs, run(session, inputs), strict=True):
        if not np.array_equal(first, second, equal_nan=first.dtype.kind == "f"):
            raise ExportError(
                f"the original gives another output `{slot.name}` each time it runs on the same input, and "
                "cannot be compared with anything; does it draw random numbers?"
            )
