"""The element type and the shape of each value of an ONNX graph, as far as they are known without a run."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import onnx
import torch
from onnx import GraphProto, ModelProto, TensorProto, ValueInfoProto

from export.read_onnx.model import OnnxModel
from export.read_onnx.symbolic_shapes import infer_symbolically
from fx_passes.errors import one_line

log = logging.getLogger(__name__)

# An initializer of more bytes than this is a weight. Its numbers say nothing about shapes.
_SHAPE_BYTES = 1024
DTYPES: dict[int, torch.dtype] = {
    TensorProto.FLOAT: torch.float32,
    TensorProto.DOUBLE: torch.float64,
    TensorProto.FLOAT16: torch.float16,
    TensorProto.BFLOAT16: torch.bfloat16,
    TensorProto.INT64: torch.int64,
    TensorProto.INT32: torch.int32,
    TensorProto.INT16: torch.int16,
    TensorProto.INT8: torch.int8,
    TensorProto.UINT8: torch.uint8,
    TensorProto.BOOL: torch.bool,
}


@dataclass(frozen=True)
class ValueType:
    """What is known of a value.

    Args:
        dtype: its element type.
        shape: its sizes: a number; a name, for an open size; None, for a size of which nothing is known.
    """

    dtype: torch.dtype
    shape: tuple[int | str | None, ...]

    @property
    def static(self) -> tuple[int, ...] | None:
        """The shape, if every size is a number."""
        sizes = tuple(size for size in self.shape if isinstance(size, int))
        return sizes if len(sizes) == len(self.shape) else None


def value_types(model: OnnxModel, wanted: Iterable[str], *, trusted: bool = True) -> dict[str, ValueType]:
    """The types of the values of the main graph.

    What the file states is taken. If it does not state the shape of a value in ``wanted``, all shapes are
    inferred: by onnxruntime's symbolic inference, or by that of onnx if the first one fails.

    Args:
        trusted: whether what the file states of values that it computes is taken.
    """
    if not trusted:
        return dict(_inferred(_without_statements(model.proto)))
    known = _stated(model.graph)
    if any(name not in known for name in wanted):
        # What the file states of a value stays: the inference may know less.
        known = {**_inferred(model.proto), **known}
    return known


def _stated(graph: GraphProto) -> dict[str, ValueType]:
    found: dict[str, ValueType] = {}
    for value in (*graph.value_info, *graph.output, *graph.input):
        if (kind := _type_of(value)) is not None:
            found[value.name] = kind
    for tensor in graph.initializer:
        if tensor.data_type in DTYPES:
            found[tensor.name] = ValueType(DTYPES[tensor.data_type], tuple(tensor.dims))
    return found


def _type_of(value: ValueInfoProto) -> ValueType | None:
    tensor = value.type.tensor_type
    if tensor.elem_type not in DTYPES or not tensor.HasField("shape"):
        return None
    return ValueType(DTYPES[tensor.elem_type], tuple(map(_size, tensor.shape.dim)))


def _size(dim: onnx.TensorShapeProto.Dimension) -> int | str | None:
    if dim.HasField("dim_value"):
        return int(dim.dim_value) if dim.dim_value >= 0 else None
    return str(dim.dim_param) or None


def _without_statements(proto: ModelProto) -> ModelProto:
    """A copy of a model without the shapes of what it computes."""
    copy = without_weights(proto)
    del copy.graph.value_info[:]
    for value in copy.graph.output:
        value.type.tensor_type.ClearField("shape")
    return copy


def _inferred(proto: ModelProto) -> Mapping[str, ValueType]:
    light = without_weights(proto)
    for infer in (infer_symbolically, _by_onnx):
        try:
            return _stated(infer(light).graph)
        except Exception as error:  # noqa: BLE001 - a tool, on a graph that it may not be made for
            log.info("%s: %s", infer.__name__.strip("_"), one_line(error))
    return {}


def _by_onnx(proto: ModelProto) -> ModelProto:
    return onnx.shape_inference.infer_shapes(proto, data_prop=True)


def without_weights(proto: ModelProto) -> ModelProto:
    """A copy of a model in which weights are inputs. Inference then copies no weights."""
    light = ModelProto()
    light.ir_version = max(proto.ir_version, 4)
    light.opset_import.extend(proto.opset_import)
    light.functions.extend(proto.functions)
    graph = proto.graph
    light.graph.name = graph.name or "graph"
    light.graph.node.extend(graph.node)
    light.graph.input.extend(graph.input)
    light.graph.output.extend(graph.output)
    light.graph.value_info.extend(graph.value_info)
    listed = {value.name for value in graph.input}
    for tensor in graph.initializer:
        if tensor.name in listed:
            continue  # a default: the user may give another shape
        if tensor.ByteSize() <= _SHAPE_BYTES and not tensor.external_data:
            light.graph.initializer.append(tensor)
        else:
            light.graph.input.append(
                onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            )
    return light
