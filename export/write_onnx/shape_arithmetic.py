"""Writes the shapes that lowered modules compute with as few nodes as possible.

torch's exporter computes each open size by itself: Shape, Squeeze, arithmetic, Reshape and Concat. On small
inputs, these nodes take as long as the convolution. But the exporter also states the shape of each value, as
an expression of the sizes of the input. So the parameter of a Reshape or a Slice can be written anew
(``size_nodes.py``). A size that is that of the same axis of what is reshaped is 0, and one size that is left
is -1.

A Reshape behind a Reshape is one Reshape, and one to the same shape is none. Nothing changes where a stated
shape says nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count

import onnx_ir as ir
import sympy

from export.write_onnx.library import entry_of
from export.write_onnx.size_nodes import SizeNodes, Sizes, Stated, has
from fx_passes.resample.lengths import Size


def simplify_shapes(library: ir.Model) -> None:
    """Write the shapes anew that the modules of a library compute, in place."""
    numbers = count()
    for index in range(len(library.graph.outputs)):
        _Entry(library.graph, index, numbers).simplify()


class _Entry:
    """One module of a library. Its nodes read no value of another one."""

    def __init__(self, graph: ir.Graph, index: int, numbers: Iterator[int]) -> None:
        entry = entry_of(graph, index)
        self.stated, self.nodes = Stated(graph, entry.input, numbers), entry.nodes
        self.batch = next(iter(self.stated.sizes(entry.input) or [0]))
        self.from_nothing = self._from_nothing(entry.output)

    def _from_nothing(self, output: ir.Value) -> bool:
        """Whether there are outputs where a length of the input is zero: from padding alone."""
        lengths = [symbol for symbol in self.stated.symbols.values() if symbol != self.batch]
        sizes = [size for size in self.stated.sizes(output) or () if isinstance(size, sympy.Expr)]
        return any(all(size.subs(length, 0) != 0 for size in sizes) for length in lengths)

    def simplify(self) -> None:
        """Write the parameters of the nodes anew."""
        for node in self.nodes if self.stated.symbols else ():
            if node.op_type == "Reshape":
                self._reshape(node)
            elif node.op_type == "Slice":
                self._slice(node)

    def _reshape(self, node: ir.Node) -> None:
        data, result = node.inputs[0], node.outputs[0]
        producer = data.producer() if data is not None else None
        if producer is not None and producer.op_type == "Reshape" and len(data.uses()) == 1:  # type: ignore[union-attr]
            data = producer.inputs[0]
        given, wanted = (None if value is None else self.stated.sizes(value) for value in (data, result))
        if data is None or given is None or wanted is None or _constant(node.inputs[1]) is not None:
            return
        if given == wanted:
            ir.convenience.replace_all_uses_with(result, data, replace_graph_outputs=True)
            return
        if 0 in wanted:  # it would stand for something else
            return
        ones = _ones_added(given, wanted), _ones_added(wanted, given)
        if (axes := ones[0] or ones[1]) is not None:
            node.op_type = "Unsqueeze" if ones[0] else "Squeeze"
            written: ir.Value | None = SizeNodes(self.stated, node, ()).constant(axes)
        else:
            written = self._written(self._target(given, wanted), node, [data, self.stated.input])
        if written is None:
            return
        node.replace_input_with(0, data)
        node.replace_input_with(1, written)
        node.attributes.pop("allowzero", None)
        if self.from_nothing and node.op_type == "Reshape":
            # A size that is computed as 0 does not stand for another one.
            node.attributes["allowzero"] = ir.AttrInt64("allowzero", 1)

    def _target(self, given: Sizes, wanted: Sizes) -> Sizes:
        """``wanted`` as a Reshape takes it, from ``given``: with 0 for a size that stays, and -1 for one.

        Where a size is zero, the runtime cannot find another one for -1. Mostly, only the batch may be zero.
        """
        if self.from_nothing:
            return wanted
        target: Sizes = [0 if size in given[i : i + 1] else size for i, size in enumerate(wanted)]
        left = [i for i, size in enumerate(target) if not isinstance(size, int)]
        if isinstance(self.batch, int):
            return _with(target, left[:1], [-1] * len(left[:1]))
        with_batch = [i for i, size in enumerate(wanted) if has(size, self.batch)]
        if len(with_batch) == 1 and with_batch[0] in left:
            return _with(target, with_batch, [-1])
        # onnxruntime itself writes -1 for a size, if it is the only one that is computed.
        return _with(target, with_batch, [wanted[i] for i in with_batch]) if len(left) == 1 else target

    def _slice(self, node: ir.Node) -> None:
        """A cut of one axis from a known place on."""
        given, first, end, axes, steps = (*node.inputs, None, None)[:5]
        start, axis, step = (_constant(value) for value in (first, axes, steps))
        sizes = self.stated.sizes(node.outputs[0])
        if given is None or end is None or sizes is None or start is None or axis is None:
            return
        if len(start) != 1 or start[0] < 0 or step not in (None, [1]) or _constant(end) is not None:
            return
        written = self._written([start[0] + sizes[axis[0]]], node, [self.stated.input, given])
        if written is not None:
            node.replace_input_with(2, written)

    def _written(self, sizes: Sizes, before: ir.Node, values: Sequence[ir.Value]) -> ir.Value | None:
        """A value with these sizes, computed in front of a node from what ``values`` have. None: it cannot
        be."""
        writer = SizeNodes(self.stated, before, values)
        parts: list[ir.Value] = []
        place = 0
        try:
            while place < len(sizes):
                made, length = writer.some(sizes[place:])
                parts.append(made)
                place += length
        except ValueError:
            return None
        return parts[0] if len(parts) == 1 else writer.node("Concat", parts, axis=0)


def _constant(value: ir.Value | None) -> list[int] | None:
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return None if tensor is None else [int(number) for number in tensor.numpy().reshape(-1)]


def _with(sizes: Sizes, places: Sequence[int], others: Sequence[Size]) -> Sizes:
    """``sizes``, with ``others`` at some places."""
    changed = dict(zip(places, others, strict=True))
    return [changed.get(place, size) for place, size in enumerate(sizes)]


def _ones_added(few: Sizes, many: Sizes) -> list[int] | None:
    """The places in ``many`` of sizes of 1, if ``few`` is all the rest. None if it is not."""
    rest, places = list(few), []
    for place, size in enumerate(many):
        if rest and rest[0] == size:
            rest.pop(0)
        elif size == 1:
            places.append(place)
        else:
            return None
    return None if rest else places
