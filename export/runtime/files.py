"""Facts about an ONNX file, found without reading its weights."""

from __future__ import annotations

import math
from pathlib import Path

import onnx
import onnx_ir as ir
from onnx.external_data_helper import uses_external_data

# Initializers move to a second file above this size: a protobuf message holds at most 2 GiB.
LARGE_BYTES = 1_800_000_000


def is_large(model: ir.Model) -> bool:
    """Whether the initializers of a model are too large for one protobuf message."""
    values = [value.const_value for value in model.graph.initializers.values()]
    return sum(value.nbytes for value in values if value is not None) > LARGE_BYTES


def is_large_file(path: Path) -> bool:
    """Whether an ONNX file has more weights than one protobuf message can hold. Such weights should be in
    memory only once."""
    return size_of(path) > LARGE_BYTES


def size_of(path: Path) -> int:
    """Bytes of an ONNX file, with its external data."""
    own = path.stat().st_size
    # External data can have any name. The usual folder without it is seen at a glance.
    if all(other.suffix == ".onnx" or other.name == path.name for other in path.parent.iterdir()):
        return own
    stored = onnx.load(path, load_external_data=False).graph.initializer
    return own + sum(bytes_of(tensor) for tensor in stored if uses_external_data(tensor))


def bytes_of(tensor: onnx.TensorProto) -> int:
    """Bytes of the values of a stored tensor."""
    if tensor.data_type == onnx.TensorProto.STRING:
        return sum(map(len, tensor.string_data))
    return round(math.prod(tensor.dims) * ir.DataType(tensor.data_type).itemsize)
