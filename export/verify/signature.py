"""What two files have to have in common before any number is compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime as ort

from export.runtime.session import Array, run
from fx_passes.errors import ExportError, NotEquivalentError


@dataclass(frozen=True)
class Slot:
    """An input or output in plain values: what onnxruntime gives would keep its session, and the weights."""

    name: str
    type: str
    shape: tuple[Any, ...]


def signature_of(session: ort.InferenceSession) -> dict[str, list[Slot]]:
    """The inputs and the outputs of a file."""
    slots = {"inputs": session.get_inputs(), "outputs": session.get_outputs()}
    return {kind: [Slot(s.name, s.type, tuple(s.shape)) for s in side] for kind, side in slots.items()}


def require_same_signature(first: dict[str, list[Slot]], second: dict[str, list[Slot]]) -> None:
    """Names, types and open sizes of both have to agree.

    Raises:
        NotEquivalentError: they do not.
    """
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
                    f"fixed to {other} in the optimized file"
                )


def require_deterministic(
    session: ort.InferenceSession, inputs: Sequence[Array], outputs: Sequence[Array]
) -> None:
    """A second run on the same input has to give the same outputs.

    Raises:
        ExportError: it does not, and nothing can be compared with it.
    """
    for slot, first, second in zip(session.get_outputs(), outputs, run(session, inputs), strict=True):
        if not np.array_equal(first, second, equal_nan=first.dtype.kind == "f"):
            raise ExportError(
                f"the original gives another output `{slot.name}` each time it runs on the same input, and "
                "cannot be compared with anything; does it draw random numbers?"
            )
