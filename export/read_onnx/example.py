"""Example inputs for an ONNX file, and the shapes that values have for them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import onnx

from export.read_onnx.model import OnnxModel
from export.runtime.arrays import shape_text
from export.runtime.session import Array, open_session, run
from fx_passes.errors import UsageError

# Element types of inputs that can be made.
_NUMPY: dict[int, type[np.generic]] = {
    1: np.float32,
    2: np.uint8,
    3: np.int8,
    5: np.int16,
    6: np.int32,
    7: np.int64,
}
_NUMPY |= {9: np.bool_, 10: np.float16, 11: np.float64}

# No larger example is made.
MOST_BYTES = 1 << 31


def example_arrays(model: OnnxModel, given: Sequence[tuple[str | None, Array]]) -> list[Array]:
    """An array for each input of a model, in their order.

    Args:
        given: arrays of the user: all of them in order, or each with the name of its input. One of
            floating-point numbers for an input of integers gives only the sizes, as on the command line.

    Raises:
        UsageError: an input has an open size and no array, or an array does not fit its input.
    """
    names = list(model.inputs)
    if given and all(name is None for name, _ in given) and len(given) != len(names):
        raise UsageError(f"{model.path} takes {len(names)} inputs ({', '.join(names)}), got {len(given)}")
    by_name: dict[str, Array] = {}
    for place, (name, array) in enumerate(given):
        key = name if name is not None else names[place] if place < len(names) else "?"
        if key not in model.inputs:
            raise UsageError(f"{model.path} has no input `{key}`; its inputs are: {', '.join(names)}")
        by_name[key] = array
    return [_fitting(model, name, by_name.get(name)) for name in names]


def _fitting(model: OnnxModel, name: str, array: Array | None) -> Array:
    kind = model.inputs[name].type.tensor_type
    dtype = _NUMPY.get(kind.elem_type)
    if dtype is None or not model.inputs[name].type.HasField("tensor_type"):
        raise UsageError(f"input `{name}` of {model.path} is no tensor of numbers; it cannot be given")
    sizes = [_size(dim) for dim in kind.shape.dim]
    said = shape_text(sizes)
    if array is None:
        if not kind.HasField("shape") or any(isinstance(size, str) for size in sizes):
            what = f"has open sizes ({said}); give them:" if sizes else "states no sizes; give them, as in"
            example = shape_text([n if isinstance(n, int) else 1 for n in sizes]) or "1x3x224x224"
            raise UsageError(f"input `{name}` of {model.path} {what} --input {name}={example}")
        shape = [int(size) for size in sizes]
        if math.prod(shape) * np.dtype(dtype).itemsize > MOST_BYTES:
            raise UsageError(f"input `{name}` of {model.path} has sizes {said}, which is too large")
        return _made(dtype, shape)
    fits = len(array.shape) == len(sizes) or not kind.HasField("shape")
    if not fits or any(isinstance(s, int) and s != n for s, n in zip(sizes, array.shape, strict=False)):
        got = shape_text(array.shape)
        raise UsageError(f"input `{name}` of {model.path} has sizes {said}, got {got}")
    if array.dtype.kind == "f" and not np.issubdtype(dtype, np.floating):
        return _made(dtype, array.shape)
    return array.astype(dtype, copy=False)


def _size(dim: onnx.TensorShapeProto.Dimension) -> int | str:
    """A size, or the name of an open one. In a file, a negative size is an open one as well."""
    if dim.HasField("dim_value"):
        return dim.dim_value if dim.dim_value >= 0 else "?"
    return dim.dim_param or "?"


def _made(dtype: type[np.generic], shape: Sequence[int]) -> Array:
    random = np.random.default_rng(0)
    if np.issubdtype(dtype, np.floating):
        return random.random(shape).astype(dtype)
    return random.integers(0, 2, shape).astype(dtype)


def shapes_at(model: OnnxModel, arrays: Sequence[Array], names: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """The shapes that values of the graph have for these inputs.

    Raises:
        ExportError: onnxruntime cannot run the model on them.
    """
    wanted = [name for name in dict.fromkeys(names) if name not in model.inputs]
    found = {name: tuple(array.shape) for name, array in zip(model.inputs, arrays, strict=True)}
    if not wanted:
        return found
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    del proto.graph.output[:]
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted)
    session = open_session(proto.SerializeToString(), optimized=False, folder=model.path.parent)
    found |= {name: tuple(array.shape) for name, array in zip(wanted, run(session, arrays), strict=True)}
    return found
