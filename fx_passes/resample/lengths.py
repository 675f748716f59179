"""Sizes of captured values: numbers, or expressions of open sizes. And samples of open sizes, at which a
claim about all of them is tried."""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import sympy
import torch
from torch import Tensor

Size: TypeAlias = int | sympy.Expr
Values: TypeAlias = Mapping[sympy.Symbol, int]

# So many sizes in a row at least: a map that depends on the parity of a size, or on another residue, shows.
IN_A_ROW = 6
# They begin at one of these, the first that leaves room for the kernel and the padding.
FIRST = (5, 13, 37, 101, 257)
# torch's bound of an open size of which nothing is said.
_ASSUMED = 2
# Sizes at which only formulas are compared, which costs nothing.
_LARGE = (1009, 1536, 2003, 4096, 4999, 10007)


def shape_of(value: Any) -> tuple[Size, ...] | None:
    """The shape of a captured value; None if it is no tensor."""
    if not isinstance(value, Tensor):
        return None
    return tuple(size_of(size) for size in value.shape)


def size_of(size: int | torch.SymInt) -> Size:
    """A size as a number, or as an expression of the open sizes of the graph."""
    if isinstance(size, int):
        return size
    form = size.node.expr
    return int(form) if form.is_Integer else form


def least(size: int | torch.SymInt) -> int:
    """The smallest value of a size, as far as the graph states bounds. Sizes of zero are not asked for."""
    if isinstance(size, int):
        return size
    ranges, form = size.node.shape_env.var_to_range, size.node.expr
    bounds = {symbol: ranges[symbol].lower for symbol in form.free_symbols if symbol in ranges}
    # torch assumes 2 of every open size, and runs with 1.
    stated = {symbol: int(low) for symbol, low in bounds.items() if low.is_Integer and low > _ASSUMED}
    return int(form.subs({symbol: stated.get(symbol, 1) for symbol in form.free_symbols}))


def plain(shape: Iterable[Size]) -> tuple[int | None, ...]:
    """A shape with None for each open size."""
    return tuple(size if isinstance(size, int) else None for size in shape)


def at(value: Any, values: Values) -> Any:
    """Sizes, or nested tuples of them, for these values of the open sizes. A size that they do not give stays
    an expression, which equals no number."""
    if isinstance(value, tuple):
        return tuple(at(item, values) for item in value)
    if not isinstance(value, sympy.Expr):
        return value
    found = value.subs(values)
    return int(found) if found.is_Integer else found


def computed(size: Size, values: Mapping[sympy.Symbol, Any]) -> Any:
    """A size, computed from numbers or from symbolic sizes of torch by its own operators.

    Raises:
        ValueError: it is no sum, product or quotient of the sizes in ``values``.
    """
    if isinstance(size, int) or size.is_Integer:
        return int(size)
    if size in values:
        return values[size]
    above, below = size.args[0].as_numer_denom() if isinstance(size, sympy.floor) else size.as_numer_denom()
    if type(size).__name__ == "FloorDiv":  # torch's own
        above, below = size.args
    if below != 1:
        return computed(above, values) // computed(below, values)
    if not isinstance(size, sympy.Add | sympy.Mul):
        raise ValueError(f"{size} is no sum or product of known sizes")
    operation = operator.add if isinstance(size, sympy.Add) else operator.mul
    return functools.reduce(operation, (computed(part, values) for part in size.args))


def values_in(shape: Sequence[Size], sizes: Sequence[Any]) -> dict[sympy.Symbol, Any]:
    """The values of the open sizes in ``shape``, of a tensor of ``sizes``, where a size tells one of them."""
    found: dict[sympy.Symbol, Any] = {}
    for form, size in zip(shape, sizes, strict=True):
        if isinstance(form, int) or len(form.free_symbols) != 1:
            continue
        (symbol,) = form.free_symbols
        factor = form.coeff(symbol)
        rest = sympy.expand(form - factor * symbol)
        if factor.is_Integer and rest.is_Integer and symbol not in found:
            value = size if rest == 0 else size - int(rest)
            found[symbol] = value if factor == 1 else value // int(factor)
    return found


def samples(
    shape: Sequence[Size], dim: int, first: int, count: int = IN_A_ROW
) -> list[dict[sympy.Symbol, int]]:
    """``count`` values of the open sizes in ``shape``: small ones, but from ``first`` on along the last
    ``dim`` axes. One empty sample, if no size is open."""
    along, others = _symbols(shape[-dim:]), _symbols(shape)
    others = [symbol for symbol in others if symbol not in along]
    if not along and not others:
        return [{}]
    return [
        {symbol: first + place + 2 * number for number, symbol in enumerate(along)}
        | {symbol: 1 + (place + number) % 3 for number, symbol in enumerate(others)}
        for place in range(count)
    ]


def large_samples(shape: Sequence[Size]) -> Iterator[dict[sympy.Symbol, int]]:
    """Large values of the open sizes in ``shape``; one empty sample, if no size is open."""
    symbols = _symbols(shape)
    for place in range(len(_LARGE) if symbols else 1):
        yield {symbol: _LARGE[(place + n) % len(_LARGE)] + n for n, symbol in enumerate(symbols)}


def _symbols(shape: Iterable[Size]) -> list[sympy.Symbol]:
    found = {symbol for size in shape if isinstance(size, sympy.Expr) for symbol in size.free_symbols}
    return sorted(found, key=str)
