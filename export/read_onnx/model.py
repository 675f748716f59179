"""An ONNX file without its external weights, and facts about the values of its main graph."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

from fx_passes.errors import LoadError, one_line

# The oldest operators that the written lowerings can be expressed in.
OLDEST_OPSET = 11
# From this version of the format on, an initializer need not be an input.
_IR_CONSTANT_INITIALIZERS = 4


@dataclass(frozen=True)
class OnnxModel:
    """A model, as ``onnx.load(path, load_external_data=False)`` gives it. It is never changed.

    Args:
        path: the file.
        proto: the message. Weights in other files are not loaded.
        opset: the version of the standard operators; 0: the model uses none.
    """

    path: Path
    proto: ModelProto
    opset: int

    @property
    def graph(self) -> GraphProto:
        return self.proto.graph

    @cached_property
    def inputs(self) -> dict[str, ValueInfoProto]:
        """The inputs that have no initializer as their default: those that a user has to give."""
        defaults = {tensor.name for tensor in self.graph.initializer}
        return {value.name: value for value in self.graph.input if value.name not in defaults}

    @cached_property
    def stored(self) -> dict[str, TensorProto]:
        """The initializers that are constants. One that is also an input can be replaced by the user."""
        listed = {value.name for value in self.graph.input}
        return {tensor.name: tensor for tensor in self.graph.initializer if tensor.name not in listed}

    @cached_property
    def producers(self) -> dict[str, NodeProto]:
        """The node of each value that a node of the main graph computes."""
        return {name: node for node in self.graph.node for name in node.output if name}

    @cached_property
    def functions(self) -> frozenset[tuple[str, str]]:
        """Domain and name of each operator that the model defines itself."""
        return frozenset((function.domain, function.name) for function in self.proto.functions)

    def is_standard(self, node: NodeProto) -> bool:
        """Whether ``node`` is an operator of the ONNX standard, and not one that the model defines."""
        return node.domain in ("", "ai.onnx") and (node.domain, node.op_type) not in self.functions


def read_model(path: Path) -> OnnxModel:
    """Read an ONNX file.

    Raises:
        LoadError: it is missing, it is no ONNX file, or its operators are older than ``OLDEST_OPSET``.
    """
    if not path.is_file():
        raise LoadError(f"no such file: {path}")
    try:
        proto = onnx.load(path, format="protobuf", load_external_data=False)
    except (DecodeError, OSError, ValueError) as error:
        raise LoadError(f"{path} cannot be read as an ONNX file: {one_line(error)}") from error
    if not proto.graph.node and not proto.graph.output:
        raise LoadError(f"{path} holds no ONNX graph")
    opset = opset_of(proto)
    if 0 < opset < OLDEST_OPSET:
        raise LoadError(
            f"{path} uses opset {opset}; opset {OLDEST_OPSET} or newer is needed: "
            "convert it with onnx.version_converter"
        )
    return OnnxModel(path, proto, opset)


def opset_of(proto: ModelProto) -> int:
    """The version of the standard operators; 0: the model uses none."""
    return max((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), default=0)


def stores_constants(proto: ModelProto) -> bool:
    """Whether a constant can be an initializer. In older formats, an initializer is an input as well."""
    return bool(proto.ir_version >= _IR_CONSTANT_INITIALIZERS)


def bodies(node: NodeProto) -> Iterator[GraphProto]:
    """The graphs that a node holds as attributes: the bodies of If, Loop and Scan."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def read_by(node: NodeProto) -> Iterable[str]:
    """The values that a node reads: its inputs, and what its bodies take from outside."""
    yield from (name for name in node.input if name)
    for body in bodies(node):
        yield from outer_names(body)


def outer_names(body: GraphProto) -> list[str]:
    """The values that a body reads and does not make itself."""
    own = {value.name for value in body.input} | {tensor.name for tensor in body.initializer}
    own.update(sparse.values.name for sparse in body.sparse_initializer)
    found = []
    for node in body.node:
        found += [name for name in read_by(node) if name not in own]
        own.update(node.output)
    return found + [value.name for value in body.output if value.name not in own]


def attribute(node: NodeProto, name: str, default: Any = None) -> Any:
    """The value of an attribute. A text is a ``str``. What the call of a function gives is not known."""
    for found in node.attribute:
        if found.name == name and not found.ref_attr_name:
            value = onnx.helper.get_attribute_value(found)
            return value.decode() if isinstance(value, bytes) else value
    return default
