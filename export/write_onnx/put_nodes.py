"""Puts the nodes of an ONNX graph: in order, and without those that nothing needs any longer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from onnx import GraphProto, NodeProto

from export.read_onnx.model import read_by


def in_order(nodes: Sequence[NodeProto]) -> list[NodeProto]:
    """The nodes in an order in which each comes after those that it reads, and otherwise as they are."""
    producers = {name: node for node in nodes for name in node.output}
    done: set[int] = set()
    ordered: list[NodeProto] = []
    for root in nodes:
        stack = [root]
        while stack:
            node = stack[-1]
            if id(node) in done:
                stack.pop()
                continue
            before = [producers[name] for name in read_by(node) if name in producers]
            waits = [producer for producer in before if id(producer) not in done]
            if waits:
                stack.extend(waits)
                continue
            done.add(id(node))
            ordered.append(node)
            stack.pop()
    return ordered


def put_nodes(graph: GraphProto, nodes: Sequence[NodeProto], removed: Sequence[NodeProto]) -> None:
    """Make ``nodes`` the nodes of the graph, without those that only ``removed`` ones needed."""
    readers = Counter(value.name for value in graph.output)
    for node in nodes:
        readers.update(read_by(node))
    producers = {name: node for node in nodes for name in node.output if name}
    dead: set[int] = set()
    gone: set[str] = set()
    stack = [name for node in removed for name in read_by(node)]
    while stack:
        name = stack.pop()
        if readers[name]:
            continue
        producer = producers.get(name)
        if producer is None:
            gone.add(name)
            continue
        if id(producer) in dead or any(readers[out] for out in producer.output if out):
            continue
        dead.add(id(producer))
        gone.update(producer.output)
        for read in read_by(producer):
            readers[read] -= 1
            stack.append(read)
    kept = [node for node in nodes if id(node) not in dead]
    del graph.node[:]
    graph.node.extend(kept)
    _forget(graph, gone)


def _forget(graph: GraphProto, gone: Iterable[str]) -> None:
    """Remove what the graph says of values that no longer exist: initializers, types and annotations.

    An input stays: a user may give it.
    """
    names = set(gone) - {value.name for value in graph.input}
    for listed, name_of in (
        (graph.initializer, lambda one: one.name),
        (graph.sparse_initializer, lambda one: one.values.name),
        (graph.value_info, lambda one: one.name),
        (graph.quantization_annotation, lambda one: one.tensor_name),
    ):
        for place in range(len(listed) - 1, -1, -1):
            if name_of(listed[place]) in names:
                del listed[place]
