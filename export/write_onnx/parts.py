"""Lowered modules as pieces of an ONNX graph: nodes, and the constants that they read.

torch's exporter takes milliseconds for every operator. Equal sites have one module, and all modules are
exported together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir
from onnx import NodeProto, TensorProto
from torch import Tensor, nn

from export.write_onnx.exporter import export_library
from export.write_onnx.labels import rename
from export.write_onnx.library import entry_of
from export.write_onnx.older_opset import at_opset


@dataclass(frozen=True)
class Part:
    """The nodes that compute one module, in order.

    Args:
        nodes: nodes with names of their own.
        constants: the initializers that they read, by name.
        input, output: the values that they read and compute.
    """

    nodes: tuple[NodeProto, ...]
    constants: dict[str, TensorProto]
    input: str
    output: str


def parts_of(
    modules: Sequence[nn.Module], examples: Sequence[Tensor], opset: int, sizes: Sequence[dict[int, Any]]
) -> list[Part]:
    """Each module as a part, in the operators of ``opset``.

    Args:
        modules: modules with one input and one output each.
        examples: an input of each.
        opset: 11 or newer.
        sizes: the open sizes of each input, as for ``torch.export.export``.

    Raises:
        ExportError: torch cannot export a module, or it has no form at that opset.
    """
    if not modules:
        return []
    library = export_library(modules, examples, sizes)
    return [_part(library, index, opset) for index in range(len(modules))]


def _part(library: ir.Model, index: int, opset: int) -> Part:
    entry = entry_of(library.graph, index)
    constants = {
        str(value.name): ir.to_proto(value.const_value)
        for node in entry.nodes
        for value in node.inputs
        if value is not None and value.is_initializer() and value.const_value is not None
    }
    nodes = at_opset([_bare(node) for node in entry.nodes], opset, constants)
    read = {name for node in nodes for name in node.input}
    kept = {name: tensor for name, tensor in constants.items() if name in read}
    kept, input, output = rename(nodes, kept, str(entry.input.name), str(entry.output.name), opset)
    return Part(tuple(nodes), kept, input, output)


def _bare(node: ir.Node) -> NodeProto:
    """The node without the notes of the exporter, which tell of files on this machine."""
    proto = ir.to_proto(node)
    del proto.metadata_props[:]
    proto.ClearField("doc_string")
    return proto
