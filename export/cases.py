"""Inputs that show a difference between two models, made from what an ONNX file says of its inputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnxruntime as ort

from export.session import Array
from fx_passes.errors import UsageError

EXAMPLE = "example input"


def make_cases(
    session: ort.InferenceSession, example_inputs: Sequence[Array] | None, *, special: bool = False
) -> Iterator[tuple[str, list[Array]]]:
    """Named inputs: the example, six kinds of numbers, and other sizes where a dimension is open.

    Args:
        special: a seventh kind, numbers among which are Inf and NaN.
    """
    slots = session.get_inputs()
    example = list(example_inputs) if example_inputs is not None else None
    if example is None:
        rng = np.random.default_rng(0)
        example = [_fill("normal", _shape(slot, None, 2), slot.type, None, rng) for slot in slots]
    if len(example) != len(slots):
        wanted = ", ".join(slot.name for slot in slots)
        raise UsageError(f"the model takes {len(slots)} inputs ({wanted}), got {len(example)}")
    yield EXAMPLE, example
    kinds = ["normal", "uniform", "large", "tiny", "impulses", "constant", *(["non-finite"] * special)]
    for seed, kind in enumerate(kinds):
        rng = np.random.default_rng(seed)
        yield kind, [_fill(kind, a.shape, s.type, a, rng) for s, a in zip(slots, example, strict=True)]
    open_batch = any(slot.shape and not isinstance(slot.shape[0], int) for slot in slots)
    for size in (1, 3) if open_batch else ():
        rng = np.random.default_rng(size)
        shapes = [_shape(s, a, size) for s, a in zip(slots, example, strict=True)]
        arrays = [
            _fill("normal", shape, s.type, a, rng) for shape, s, a in zip(shapes, slots, example, strict=True)
        ]
        yield f"batch of {size}", arrays
    if any(not isinstance(size, int) for slot in slots for size in slot.shape[1:]):
        rng = np.random.default_rng(0)
        yield (
            "other sizes",
            [
                _fill("normal", _doubled(slot, array), slot.type, array, rng)
                for slot, array in zip(slots, example, strict=True)
            ],
        )


def _shape(slot: Any, example: Array | None, batch: int) -> tuple[int, ...]:
    """The sizes of an input, an open first one set to ``batch``, other open ones as in the example."""
    sizes = []
    for dim, size in enumerate(slot.shape):
        if isinstance(size, int):
            sizes.append(size)
        elif dim == 0 or example is None:
            sizes.append(batch if dim == 0 else 64)
        else:
            sizes.append(example.shape[dim])
    return tuple(sizes)


def _doubled(slot: Any, example: Array) -> tuple[int, ...]:
    """The sizes of the example, open ones but the first twice as large."""
    pairs = enumerate(zip(slot.shape, example.shape, strict=True))
    return tuple(size * (1 + (i > 0 and not isinstance(stated, int))) for i, (stated, size) in pairs)


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


def _fill(
    kind: str, shape: tuple[int, ...], onnx_type: str, example: Array | None, rng: np.random.Generator
) -> Array:
    if onnx_type not in _DTYPES:
        raise UsageError(f"inputs of type {onnx_type} are not supported by the equivalence check")
    dtype = _DTYPES[onnx_type]
    if not np.issubdtype(dtype, np.floating):
        # Indices and flags have a meaning; only values seen in the example are known to be valid.
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
