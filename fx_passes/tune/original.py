"""The part of a graph that a lowering of a site replaces, as a graph of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node

from fx_passes.graph.operators import described_inputs, read_inputs
from fx_passes.resample.lengths import Size, computed, shape_of, size_of, values_in
from fx_passes.resample.site import Site


def original_of(graph_module: GraphModule, site: Site, count: int = 1) -> GraphModule:
    """What ``site`` computes in ``graph_module``, from its input to its output.

    Args:
        graph_module: the graph. Its tensors are used, not copied.
        site: one of its sites. Of several in a row, the parts are computed one after the other.
        count: how many inputs the result takes, and outputs it gives: a single one, or a list of them.
    """
    nodes = {node.name: node for node in graph_module.graph.nodes}
    graph, attributes = Graph(), dict[str, Any]()
    values = [graph.placeholder(f"x_{number}") for number in range(count)]
    for number, value in enumerate(values):
        for part in site.parts or (site,):  # an open size may follow from the input of one part alone
            value = _copied(graph_module, nodes, part, graph, value, attributes)
        values[number] = value
    graph.output(values[0] if count == 1 else values)
    return GraphModule(attributes, graph)


def _copied(
    graph_module: GraphModule,
    nodes: Mapping[str, Node],
    site: Site,
    graph: Graph,
    x: Node,
    attributes: dict[str, Any],
) -> Node:
    """Copy the nodes of ``site`` to the end of ``graph``, where they read ``x``. Returns the copy of its end.

    Modules and tensors that they use are added to ``attributes``.
    """
    source, end = nodes[site.source], nodes[site.end]
    needed, like = _needed(source, end)
    copies = {source: x}
    for node in like - needed - {source}:
        value = node.meta["val"]
        described = {"dtype": value.dtype, "device": value.device}
        copies[node] = graph.call_function(torch.ops.aten.zeros.default, (list(value.shape),), described)
    shape = shape_of(source.meta.get("val")) or ()
    for node in nodes.values():
        if node not in needed:
            continue
        if isinstance(size := node.meta.get("val"), torch.SymInt):
            name = f"{node.name}_from_{source.name}"
            attributes[name] = _OpenSize(size_of(size), shape)
            copies[node] = graph.call_module(name, (copies[source],))
            continue
        if node.op in ("get_attr", "call_module"):
            attributes[str(node.target)] = attrgetter(str(node.target))(graph_module)
        copies[node] = graph.node_copy(node, lambda n: copies[n])
    return copies[end]


def _needed(source: Node, end: Node) -> tuple[set[Node], set[Node]]:
    """The nodes that ``end`` is computed from, up to ``source``; and those of which only the shape and the
    type are used, as by ``x.new_zeros``."""
    needed, like, stack = set[Node](), set[Node](), [end]
    while stack:
        node = stack.pop()
        if node not in needed and node is not source:
            needed.add(node)
            stack.extend(read_inputs(node))
            like.update(described_inputs(node))
    return needed, like


def shapes_of(same: Sequence[Site]) -> list[tuple[int, ...]]:
    """The shapes that equal sites read, as far as they are known."""
    if not same[0].resample.static:
        return list(dict.fromkeys(shape for one in same for shape in one.shapes))
    return [tuple(size or 0 for size in same[0].resample.in_shape)]


class _OpenSize(nn.Module):
    """A size that follows from those of the input."""

    def __init__(self, size: Size, shape: Sequence[Size]) -> None:
        super().__init__()
        self.size, self.shape = size, shape

    def forward(self, x: Tensor) -> Any:
        return computed(self.size, values_in(self.shape, x.shape))
