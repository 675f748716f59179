"""Edits of an ONNX message: nodes are replaced, and everything else stays as it was, byte for byte.

New nodes stand where the last node that they replace stood, and compute a value of the same name. What only
replaced nodes read is removed with them. All new names begin with ``fx_passes/``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto

from export.read_onnx.model import bodies, opset_of, stores_constants
from export.write_onnx.labels import free_name
from export.write_onnx.parts import Part
from export.write_onnx.put_nodes import in_order, put_nodes

PREFIX = "fx_passes/"


@dataclass(frozen=True)
class Replacement:
    """One or more values that are to be computed by a part.

    Args:
        name: a name for the new nodes.
        part: what computes the values.
        sources, ends: the values that it reads and computes. Of several, the sources are joined along the
            batch, and the result is split into equal parts.
    """

    name: str
    part: Part
    sources: tuple[str, ...]
    ends: tuple[str, ...]


@dataclass(frozen=True)
class Written:
    """Where a replacement is in a graph: the value that its part reads, the one that it computes, and the
    names of the nodes of the part."""

    source: str
    end: str
    nodes: frozenset[str]


def replace_parts(proto: ModelProto, replacements: Sequence[Replacement]) -> list[Written]:
    """Carry out the replacements, in place.

    Args:
        proto: a model that nobody else reads.
        replacements: no node computes the ends of two of them.

    Returns:
        Where each replacement is.
    """
    names, opset = Names(proto.graph), opset_of(proto)
    stored: dict[int, dict[str, str]] = {}
    written, made = [], dict[str, list[NodeProto]]()
    constants: list[TensorProto] = []
    for replacement in replacements:
        part = replacement.part
        if id(part) not in stored:
            stored[id(part)] = _store(part, replacement.name, names, constants)
        nodes, where = _nodes_of(replacement, names, stored[id(part)], opset)
        made[replacement.ends[0]] = nodes
        written.append(where)
    ends = {end for replacement in replacements for end in replacement.ends}
    nodes, removed = [], []
    for node in proto.graph.node:
        if ends.isdisjoint(node.output):
            nodes.append(node)
        else:
            removed.append(node)
            nodes += made.get(node.output[0], [])
    if any(len(replacement.ends) > 1 for replacement in replacements):
        nodes = in_order(nodes)
    _add_constants(proto, constants, nodes)
    put_nodes(proto.graph, nodes, removed)
    return written


def _store(part: Part, owner: str, names: Names, constants: list[TensorProto]) -> dict[str, str]:
    """Add the constants of a part, and return their new names: those of the first site that reads them."""
    renamed = {}
    for name, tensor in part.constants.items():
        renamed[name] = names.free(f"{PREFIX}{owner}/{name}")
        copy = TensorProto()
        copy.CopyFrom(tensor)
        copy.name = renamed[name]
        constants.append(copy)
    return renamed


def _nodes_of(
    replacement: Replacement, names: Names, stored: Mapping[str, str], opset: int
) -> tuple[list[NodeProto], Written]:
    part, prefix = replacement.part, f"{PREFIX}{replacement.name}/"
    source, end = replacement.sources[0], replacement.ends[0]
    before, behind = [], []
    if len(replacement.ends) > 1:
        source, end = names.free(f"{prefix}joined"), names.free(f"{prefix}computed")
        before.append(
            onnx.helper.make_node("Concat", replacement.sources, [source], name=names.node(source), axis=0)
        )
        behind.append(_parted(replacement.ends, end, names.node(f"{prefix}parts"), opset))
    mapping = {part.input: source, part.output: end, "": "", **stored}
    nodes = []
    for node in part.nodes:
        copy = NodeProto()
        copy.CopyFrom(node)
        for name in node.output:
            if name not in mapping:
                mapping[name] = names.free(prefix + name)
        copy.input[:] = [mapping[name] for name in node.input]
        copy.output[:] = [mapping[name] for name in node.output]
        copy.name = names.node(prefix + node.name)
        nodes.append(copy)
    return [*before, *nodes, *behind], Written(source, end, frozenset(node.name for node in nodes))


def _parted(ends: Sequence[str], computed: str, name: str, opset: int) -> NodeProto:
    """The ends as equal parts of the batch of ``computed``."""
    node = onnx.helper.make_node("Split", [computed], ends, name=name, axis=0)
    if opset >= 18:  # before, an equal division is what is done without sizes
        node.attribute.append(onnx.helper.make_attribute("num_outputs", len(ends)))
    return node


class Names:
    """Names of values and of nodes that the graph does not have yet."""

    def __init__(self, graph: GraphProto) -> None:
        self._values: set[str] = set()
        self._nodes: set[str] = set()
        self._take(graph)

    def _take(self, graph: GraphProto) -> None:
        self._values.update(value.name for value in (*graph.input, *graph.output, *graph.value_info))
        self._values.update(tensor.name for tensor in graph.initializer)
        self._values.update(sparse.values.name for sparse in graph.sparse_initializer)
        for node in graph.node:
            self._nodes.add(node.name)
            self._values.update(node.input)
            self._values.update(node.output)
            for body in bodies(node):
                self._take(body)

    def free(self, name: str) -> str:
        """``name``, or ``name`` with a number, as the name of a value."""
        return free_name(name, self._values)

    def node(self, name: str) -> str:
        """The same for the name of a node."""
        return free_name(name, self._nodes)


def _add_constants(proto: ModelProto, constants: Sequence[TensorProto], nodes: list[NodeProto]) -> None:
    """Store constants: as initializers, or as nodes, where an initializer would have to be an input."""
    if stores_constants(proto):
        proto.graph.initializer.extend(constants)
        return
    made = [onnx.helper.make_node("Constant", [], [c.name], name=c.name, value=c) for c in constants]
    nodes[:0] = made
