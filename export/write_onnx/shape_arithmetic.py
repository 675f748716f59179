"""Writes the shapes that lowered modules compute with as few nodes as possible.

torch's exporter computes each open size by itself: Shape, Squeeze, arithmetic, Reshape and Concat. On small
inputs, these nodes take as long as the convolution. But the exporter also states the shape of each value, as
an expression of the sizes of the input. So the parameter of a Reshape or a Slice can be written anew:

- a size that is that of the same axis of what is reshaped is 0, and one size that is left is -1;
- neighbouring sizes that a value has are one Shape with ``start`` and ``end``;
- what must be computed begins with the nearest size that a value has.

A Reshape behind a Reshape is one Reshape, and one to the same shape is none. Nothing changes where a stated
shape says nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Any, TypeAlias

import numpy as np
import onnx_ir as ir
import sympy

from export.read_onnx.size_names import expression_of
from export.write_onnx.library import entry_of
from fx_passes.resample.lengths import computed

Size: TypeAlias = "int | sympy.Expr"
Sizes: TypeAlias = "list[Size]"


def simplify_shapes(library: ir.Model) -> None:
    """Write the shapes anew that the modules of a library compute, in place."""
    numbers = count()
    for index in range(len(library.graph.outputs)):
        _Entry(library.graph, index, numbers).simplify()


class _Entry:
    """One module of a library. Its nodes read no value of another one."""

    def __init__(self, graph: ir.Graph, index: int, numbers: Any) -> None:
        self.graph, self.numbers = graph, numbers
        entry = entry_of(graph, index)
        self.input, self.nodes = entry.input, entry.nodes
        names = [size.value for size in self.input.shape or () if isinstance(size, ir.SymbolicDim)]
        self.symbols = {n: sympy.Symbol(n, integer=True, nonnegative=True) for n in names if n}
        self.batch = next(iter(self.sizes(self.input) or [0]))

    def simplify(self) -> None:
        if not self.symbols:
            return
        for node in self.nodes:
            if node.op_type == "Reshape":
                self._reshape(node)
            elif node.op_type == "Slice":
                self._slice(node)

    def sizes(self, value: ir.Value) -> Sizes | None:
        """The stated shape of a value; None if it says nothing."""
        if value.shape is None:
            return None
        found = [_size(size, self.symbols) for size in value.shape]
        return None if None in found else found  # type: ignore[return-value]

    def _reshape(self, node: ir.Node) -> None:
        data, result = node.inputs[0], node.outputs[0]
        producer = data.producer() if data is not None else None
        if producer is not None and producer.op_type == "Reshape" and len(data.uses()) == 1:  # type: ignore[union-attr]
            data = producer.inputs[0]
        given, wanted = (None if value is None else self.sizes(value) for value in (data, result))
        if data is None or given is None or wanted is None or _constant(node.inputs[1]) is not None:
            return
        if given == wanted:
            ir.convenience.replace_all_uses_with(result, data, replace_graph_outputs=True)
            return
        if 0 in wanted:  # it would stand for something else
            return
        target: Sizes = [0 if size in given[i : i + 1] else size for i, size in enumerate(wanted)]
        left = [i for i, size in enumerate(target) if not isinstance(size, int)]
        if (place := self._inferred(target, left, wanted)) is not None:
            target[place] = -1
        written = self._written(target, node, [data, self.input])
        if written is None:
            return
        node.replace_input_with(0, data)
        node.replace_input_with(1, written)
        node.attributes.pop("allowzero", None)

    def _inferred(self, target: Sizes, left: Sequence[int], wanted: Sizes) -> int | None:
        """The place of the size that the runtime finds. It cannot if another one is zero: only the batch may
        be."""
        if isinstance(self.batch, int):
            return left[0] if left else None
        with_batch = [i for i, size in enumerate(wanted) if _has(size, self.batch)]
        return with_batch[0] if len(with_batch) == 1 and with_batch[0] in left else None

    def _slice(self, node: ir.Node) -> None:
        """A cut of one axis from a known place on."""
        given, first, end, axes, steps = (*node.inputs, None, None)[:5]
        start, axis, step = (_constant(value) for value in (first, axes, steps))
        sizes = self.sizes(node.outputs[0])
        if given is None or end is None or sizes is None or start is None or axis is None:
            return
        if len(start) != 1 or start[0] < 0 or step not in (None, [1]) or _constant(end) is not None:
            return
        written = self._written([start[0] + sizes[axis[0]]], node, [self.input, given])
        if written is not None:
            node.replace_input_with(2, written)

    def _written(self, sizes: Sizes, before: ir.Node, values: Sequence[ir.Value]) -> ir.Value | None:
        """A value with these sizes, computed in front of a node from what ``values`` have. None: it cannot
        be."""
        writer = _Writer(self, before, values)
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


class _Writer:
    """Adds the nodes that compute sizes in front of a node. They are kept only if something reads them."""

    def __init__(self, entry: _Entry, before: ir.Node, values: Sequence[ir.Value]) -> None:
        self.entry, self.before = entry, before
        self.known = [(value, sizes) for value in values if (sizes := entry.sizes(value)) is not None]

    def some(self, sizes: Sizes) -> tuple[ir.Value, int]:
        """A value with the first of ``sizes``, as many as one node gives; and how many these are.

        Raises:
            ValueError: the first one follows from no size that is known.
        """
        numbers = next((i for i, size in enumerate(sizes) if not isinstance(size, int)), len(sizes))
        if numbers:
            return self.constant([int(size) for size in sizes[:numbers]]), numbers
        runs = [
            (_alike(sizes, there[place:]), value, place)
            for value, there in self.known
            for place in range(len(there))
        ]
        length, value, place = max(runs, key=lambda run: run[0])
        if length:
            return self.node("Shape", [value], start=place, end=place + length), length
        return self.computed(sizes[0]), 1

    def computed(self, size: Size) -> ir.Value:
        """A value with one size: a multiple of one that is known, and a number; or arithmetic on those of the
        input."""
        for value, there in self.known:
            for place, near in enumerate(there):
                if (found := _multiple(size, near)) is not None:
                    factor, more = found
                    start = _Number(self, self.node("Shape", [value], start=place, end=place + 1))
                    return (start * factor + more).value
        own = self.entry.sizes(self.entry.input) or []
        symbols = {
            near: _Number(self, self.node("Shape", [self.entry.input], start=place, end=place + 1))
            for place, near in enumerate(own)
            if isinstance(near, sympy.Symbol) and _has(size, near)
        }
        made = computed(_folded(size), symbols)
        if not isinstance(made, _Number):
            raise ValueError(f"{size} is a number")
        return made.value

    def constant(self, numbers: Sequence[int]) -> ir.Value:
        name = f"sizes_{next(self.entry.numbers)}"
        tensor = ir.tensor(np.array(numbers, dtype=np.int64), name=name)
        value = ir.Value(name=name, shape=ir.Shape([len(numbers)]), type=ir.TensorType(ir.DataType.INT64))
        value.const_value = tensor
        self.entry.graph.register_initializer(value)
        return value

    def node(self, op: str, inputs: Sequence[ir.Value], **attributes: int) -> ir.Value:
        made = ir.node(op, inputs, attributes=attributes, name=f"sizes_{next(self.entry.numbers)}")
        made.outputs[0].name = made.name
        made.outputs[0].type = ir.TensorType(ir.DataType.INT64)
        self.entry.graph.insert_before(self.before, made)
        return made.outputs[0]


class _Number:
    """A size in the graph, for arithmetic as Python has it. ONNX rounds a quotient towards zero; no size is
    negative."""

    def __init__(self, writer: _Writer, value: ir.Value) -> None:
        self.writer, self.value = writer, value

    def _with(self, op: str, other: Any, neutral: int | None) -> _Number:
        if other == neutral:
            return self
        value = other.value if isinstance(other, _Number) else self.writer.constant([other])
        return _Number(self.writer, self.writer.node(op, [self.value, value]))

    def __add__(self, other: Any) -> _Number:
        return self._with("Add", other, 0)

    def __mul__(self, other: Any) -> _Number:
        return self._with("Mul", other, 1)

    def __floordiv__(self, other: Any) -> _Number:
        return self._with("Div", other, 1)

    __radd__, __rmul__ = __add__, __mul__


def _size(size: int | ir.SymbolicDim, symbols: dict[str, sympy.Symbol]) -> Size | None:
    if isinstance(size, int):
        return size
    form = expression_of(size.value, symbols) if size.value else None
    return int(form) if form is not None and form.is_Integer else form


def _constant(value: ir.Value | None) -> list[int] | None:
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return None if tensor is None else [int(number) for number in tensor.numpy().reshape(-1)]


def _has(size: Size, symbol: Size) -> bool:
    return isinstance(size, sympy.Expr) and symbol in size.free_symbols


def _alike(sizes: Sizes, there: Sizes) -> int:
    """How many of the first sizes are equal, and no numbers."""
    length = 0
    for size, near in zip(sizes, there, strict=False):
        if isinstance(size, int) or size != near:
            break
        length += 1
    return length


def _multiple(size: Size, near: Size) -> tuple[int, int] | None:
    """Whole numbers c and k, if ``size == c * near + k``. It is read off the forms, and may be missed."""
    if isinstance(size, int) or isinstance(near, int):
        return None
    mine, its = ({**sympy.expand(one).as_coefficients_dict()} for one in (size, near))
    more, there = mine.pop(sympy.S.One, 0), its.pop(sympy.S.One, 0)
    factors = {mine[term] / its[term] for term in mine} if mine.keys() == its.keys() else set()
    if len(factors) != 1:
        return None
    factor = factors.pop()
    more -= factor * there
    return (int(factor), int(more)) if factor.is_Integer and more.is_Integer and factor > 0 else None


def _folded(size: Size) -> Size:
    """``floor(a) + k`` as ``floor(a + k)``, which is one addition less and does not round below zero."""
    if not isinstance(size, sympy.Add):
        return size
    number, rest = size.as_coeff_Add()
    if number.is_Integer and isinstance(rest, sympy.floor):
        return sympy.floor(sympy.together(rest.args[0] + number))
    return size
