"""The nodes that compute sizes: as few as the shapes allow that values state.

Neighbouring sizes that a value has are one Shape with ``start`` and ``end``. What must be computed begins
with the nearest size that a value has.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import onnx_ir as ir
import sympy

from export.read_onnx.size_names import expression_of
from fx_passes.resample.lengths import Size, computed

Sizes: TypeAlias = "list[Size]"


class Stated:
    """What is stated of the values of one module.

    Args:
        graph: it gets the nodes.
        input: the input of the module. Its open sizes are symbols.
        numbers: for the names of nodes and values.
    """

    def __init__(self, graph: ir.Graph, input: ir.Value, numbers: Iterator[int]) -> None:
        self.graph, self.input, self.numbers = graph, input, numbers
        names = [size.value for size in input.shape or () if isinstance(size, ir.SymbolicDim)]
        self.symbols = {n: sympy.Symbol(n, integer=True, nonnegative=True) for n in names if n}

    def sizes(self, value: ir.Value) -> Sizes | None:
        """The stated shape of a value; None if it says nothing."""
        if value.shape is None:
            return None
        found = [_size(size, self.symbols) for size in value.shape]
        return None if None in found else found  # type: ignore[return-value]


class SizeNodes:
    """Adds the nodes that compute sizes in front of a node. They are kept only if something reads them."""

    def __init__(self, stated: Stated, before: ir.Node, values: Sequence[ir.Value]) -> None:
        self.stated, self.before = stated, before
        self.known = [(value, sizes) for value in values if (sizes := stated.sizes(value)) is not None]

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
        own = self.stated.sizes(self.stated.input) or []
        symbols = {
            near: _Number(self, self.node("Shape", [self.stated.input], start=place, end=place + 1))
            for place, near in enumerate(own)
            if isinstance(near, sympy.Symbol) and has(size, near)
        }
        made = computed(_folded(size), symbols)
        if not isinstance(made, _Number):
            raise ValueError(f"{size} is a number")
        return made.value

    def constant(self, numbers: Sequence[int]) -> ir.Value:
        name = f"sizes_{next(self.stated.numbers)}"
        tensor = ir.tensor(np.array(numbers, dtype=np.int64), name=name)
        value = ir.Value(name=name, shape=ir.Shape([len(numbers)]), type=ir.TensorType(ir.DataType.INT64))
        value.const_value = tensor
        self.stated.graph.register_initializer(value)
        return value

    def node(self, op: str, inputs: Sequence[ir.Value], **attributes: int) -> ir.Value:
        made = ir.node(op, inputs, attributes=attributes, name=f"sizes_{next(self.stated.numbers)}")
        made.outputs[0].name = made.name
        made.outputs[0].type = ir.TensorType(ir.DataType.INT64)
        self.stated.graph.insert_before(self.before, made)
        return made.outputs[0]


class _Number:
    """A size in the graph, for arithmetic as Python has it. ONNX rounds a quotient towards zero; no size is
    negative."""

    def __init__(self, writer: SizeNodes, value: ir.Value) -> None:
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


def has(size: Size, symbol: Size) -> bool:
    """Whether ``size`` follows from ``symbol``."""
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
