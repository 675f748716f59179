"""Inputs that show a difference between two models, made from the inputs that an ONNX file declares."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnxruntime as ort

from export.runtime.session import Array
from export.verify.sizes import other_sizes
from fx_passes.capture.asked_sizes import OpenSizes
from fx_passes.errors import UsageError

EXAMPLE = "example input"


class Case(NamedTuple):
    """An input with a name, its arrays in the order of the inputs of the file."""

    name: str
    inputs: list[Array]


def make_cases(
    session: ort.InferenceSession,
    example_inputs: Sequence[Array] | None,
    *,
    special: bool = False,
    sizes: OpenSizes | None = None,
) -> Iterator[Case]:
    """Named inputs: the example, six kinds of numbers, and other sizes if a dimension is open.

    Args:
        session: a session of the file.
        example_inputs: arrays in the order of the inputs; made if they are not given.
        special: add a seventh kind, numbers with Inf and NaN among them.
        sizes: what the model needs of its open sizes.
    """
    slots = session.get_inputs()
    example = list(example_inputs) if example_inputs is not None else None
    if example is None:
        rng = np.random.default_rng(0)
        example = [_fill("normal", _shape(slot), _dtype(slot), None, rng) for slot in slots]
    if len(example) != len(slots):
        wanted = ", ".join(slot.name for slot in slots)
        raise UsageError(f"the model takes {len(slots)} inputs ({wanted}), got {len(example)}")
    yield Case(EXAMPLE, example)
    kinds = ["normal", "uniform", "large", "tiny", "impulses", "constant", *(["non-finite"] * special)]
    for seed, kind in enumerate(kinds):
        rng = np.random.default_rng(seed)
        arrays = [_fill(kind, a.shape, _dtype(s), a, rng) for s, a in zip(slots, example, strict=True)]
        yield Case(kind, arrays)
    for seed, (name, shapes) in enumerate(other_sizes(slots, example, sizes)):
        yield Case(name, resized(example, shapes, seed))


def resized(example: Sequence[Array], shapes: Sequence[Sequence[int]], seed: int = 0) -> list[Array]:
    """Random inputs like those of an example, in other shapes."""
    rng = np.random.default_rng(seed)
    pairs = zip(example, shapes, strict=True)
    return [_fill("normal", tuple(shape), array.dtype, array, rng) for array, shape in pairs]


def _shape(slot: Any) -> tuple[int, ...]:
    """The sizes of an input. An open batch is 2, other open sizes are 64."""
    return tuple(size if isinstance(size, int) else 64 if dim else 2 for dim, size in enumerate(slot.shape))


_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(int16)": np.int16,
    "tensor(int8)": np.int8,
    "tensor(uint8)": np.uint8,
    "tensor(bool)": np.bool_,
}


def _dtype(slot: Any) -> np.dtype[Any]:
    if slot.type not in _DTYPES:
        raise UsageError(f"inputs of type {slot.type} are not supported by the equivalence check")
    return np.dtype(_DTYPES[slot.type])


def _fill(
    kind: str, shape: tuple[int, ...], dtype: np.dtype[Any], example: Array | None, rng: np.random.Generator
) -> Array:
    if not np.issubdtype(dtype, np.floating):
        # Indices and flags have a meaning. Only the values of the example are known to be valid.
        low, high = (0, 1) if example is None or not example.size else (example.min(), example.max())
        return rng.integers(int(low), int(high), shape, endpoint=True).astype(dtype)
    values = rng.standard_normal(shape)
    if kind == "uniform":
        values = rng.random(shape)
    elif kind == "large":
        values *= 1e2 if dtype == np.float16 else 1e4
    elif kind == "tiny":
        values *= 1e-4 if dtype == np.float16 else 1e-20
    elif kind == "impulses":
        values = (rng.random(shape) < 0.01).astype(np.float64)
        values.reshape(-1)[: values.size > 0] = 1.0
    elif kind == "non-finite":
        places = rng.choice(values.size, min(values.size, 3), replace=False)
        values.reshape(-1)[places] = [np.inf, -np.inf, np.nan][: len(places)]
    elif kind == "constant":
        values = np.full(shape, 0.5)
    return np.asarray(values).astype(dtype)
