"""The nodes of a graph that compute one value from another."""

from __future__ import annotations

from collections.abc import Iterator

from onnx import GraphProto, NodeProto

from export.read_onnx.model import read_by


class Producers:
    """The nodes of a graph by what they compute, and their order."""

    def __init__(self, graph: GraphProto) -> None:
        self._by_value = {name: node for node in graph.node for name in node.output if name}
        self._order = {id(node): number for number, node in enumerate(graph.node)}
        stored = {tensor.name for tensor in graph.initializer}
        self._inputs = {value.name for value in graph.input} - stored

    def between(self, source: str, end: str) -> tuple[str, ...]:
        """The operators that compute ``end`` from ``source`` and from constants, in the order of the graph.

        Constants themselves, and nodes that read other inputs of the graph only, are left out.
        """
        # True: it depends on the source. None: on constants only. False: on other inputs of the graph only.
        depends: dict[str, bool | None] = {**dict.fromkeys(self._inputs, False), source: True}
        found = {id(node): node for node in self._upwards(source, end)}
        needed = sorted(found.values(), key=lambda node: self._order[id(node)])
        names = []
        for node in needed:
            given = [depends.get(name) for name in read_by(node)]
            kind = True if True in given else False if False in given else None
            depends.update(dict.fromkeys(node.output, kind))
            if kind is not False and node.op_type != "Constant":
                names.append(node.op_type)
        return tuple(names)

    def _upwards(self, source: str, end: str) -> Iterator[NodeProto]:
        """All nodes that ``end`` depends on, up to ``source``."""
        seen, stack = {source}, [end]
        while stack:
            name = stack.pop()
            node = self._by_value.get(name)
            if name in seen or node is None:
                continue
            seen.update(node.output)
            yield node
            stack.extend(read_by(node))
