"""Other sizes at which two files are compared: those that the model takes, if it says which."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import Any, NamedTuple

import sympy

from export.verify.size_wishes import AT_THE_EDGE, WISHES, Axis, batch_from
from fx_passes.capture.asked_sizes import OpenSizes

Shapes = tuple[tuple[int, ...], ...]

# The inputs have at most so many times the elements of the example, or as many as are cheap in any case.
GROWTH, CHEAP = 4, 2**20
# How many combinations to look at: where sizes depend on each other, most do not fit.
_TRIES = 10_000


def other_sizes(
    slots: Sequence[Any], example: Sequence[Any], sizes: OpenSizes | None
) -> Iterator[tuple[str, Shapes]]:
    """Named shapes of all inputs, other than those of the example.

    There are two other batches, of 1 and 3 if the example has neither. Then the batch is that of the example,
    and all other open sizes change together, by the wishes of ``size_wishes.py``. Each takes a new value in
    each case, as long as there are any. Within a case no two of them are equal if that is possible, so that
    sizes that are mixed up show; only the smallest sizes may be.

    Args:
        slots: the inputs of an onnxruntime session.
        example: their arrays.
        sizes: what the model takes. None: the file says which sizes are open, without bounds.
    """
    known = sizes if sizes is not None and len(sizes.shapes) == len(slots) else _from_file(slots)
    here = _values(known, [array.shape for array in example])
    batch = _batches(known)
    rest = [symbol for symbol in here if symbol not in batch]
    room = _room(known, rest, sum(math.prod(array.shape) for array in example))
    bounds = {symbol: (known.ranges or {}).get(symbol, (1, None)) for symbol in here}
    axes = {symbol: Axis(here[symbol], *bounds[symbol], int(here[symbol] * room)) for symbol in here}
    used = {symbol: {value} for symbol, value in here.items()}
    seen = {known.at(here)}
    for first in (1, 3):
        values = _nearest(known, here, {symbol: batch_from(first, axes[symbol]) for symbol in batch})
        if (shapes := known.at(values)) is not None and shapes not in seen:
            seen.add(shapes)
            yield f"batch of {values[batch[0]]}", shapes
    for name, wish in WISHES.items():
        edge = name == AT_THE_EDGE
        ways = {s: [n for n in wish(axes[s]) if edge or n not in used[s]] for s in rest}
        values = _nearest(known, here, ways, apart=not edge)
        if (shapes := known.at(values)) is not None and shapes not in seen:
            seen.add(shapes)
            for symbol in rest:
                used[symbol].add(values[symbol])
            yield name, shapes


def _batches(sizes: OpenSizes) -> list[sympy.Symbol]:
    """The open sizes that are first in an input, with others behind them, and that are nowhere else."""
    first = [row[0] for row in sizes.shapes if len(row) > 1 and isinstance(row[0], sympy.Symbol)]
    later = {symbol for row in sizes.shapes for n in row[1:] for symbol in sympy.sympify(n).free_symbols}
    return [symbol for symbol in dict.fromkeys(first) if symbol not in later]


def _room(sizes: OpenSizes, rest: Sequence[sympy.Symbol], elements: int) -> float:
    """By how much each size may grow, so that all together do not make the inputs too large.

    Args:
        rest: the sizes that change together.
        elements: of all inputs of the example.
    """
    allowed = max(GROWTH * elements, CHEAP) / max(1, elements)
    open_dims = [sum(not sympy.sympify(n).free_symbols.isdisjoint(rest) for n in row) for row in sizes.shapes]
    return float(allowed ** (1 / max(1, *open_dims, 1))) + 1e-9


def _nearest(
    sizes: OpenSizes,
    here: Mapping[sympy.Symbol, int],
    ways: Mapping[sympy.Symbol, Sequence[int]],
    *,
    apart: bool = False,
) -> dict[sympy.Symbol, int]:
    """For each size, the first value that the model takes with the others; else that of the example.

    Args:
        here: the values of the example.
        ways: by symbol, the values to try, in this order.
        apart: values that none of the others has come first.
    """
    fixed = {symbol: value for symbol, value in here.items() if symbol not in ways}
    search = _Search(sizes, here, apart, count())
    return next(_along(search, fixed, list(ways.items())), dict(here))


class _Search(NamedTuple):
    """What stays the same in a search, and a counter of its tries."""

    sizes: OpenSizes
    here: Mapping[sympy.Symbol, int]
    apart: bool
    tries: Iterator[int]


def _along(
    search: _Search, values: dict[sympy.Symbol, int], ways: Sequence[tuple[sympy.Symbol, Sequence[int]]]
) -> Iterator[dict[sympy.Symbol, int]]:
    """``values``, with values of each way that the model takes; without one, those of the example."""
    if not ways:
        yield values
        return
    (symbol, way), *rest = ways
    others = set(values.values()) if search.apart else set()
    for value in (*sorted(way, key=others.__contains__), search.here[symbol]):
        more = values | {symbol: value}
        if next(search.tries) < _TRIES and search.sizes.takes(more):
            yield from _along(search, more, rest)


def _from_file(slots: Sequence[Any]) -> OpenSizes:
    """What a file says: a name for each open size, or nothing."""

    def size(stated: Any, place: str) -> Any:
        return stated if isinstance(stated, int) else sympy.Symbol(str(stated or place))

    shapes = tuple(
        tuple(size(stated, f"{slot.name}[{dim}]") for dim, stated in enumerate(slot.shape)) for slot in slots
    )
    return OpenSizes(None, shapes)


def _values(sizes: OpenSizes, shapes: Sequence[Sequence[int]]) -> dict[sympy.Symbol, int]:
    """The value of each symbol in the example."""
    values: dict[sympy.Symbol, int] = {}
    pairs = [
        pair for row, shape in zip(sizes.shapes, shapes, strict=True) for pair in zip(row, shape, strict=True)
    ]
    for stated, size in pairs:
        if isinstance(stated, sympy.Symbol):
            values.setdefault(stated, size)
    for stated, size in pairs:
        form = sympy.sympify(stated)
        unknown = form.free_symbols - set(values)
        if len(unknown) == 1 and form.is_polynomial(*unknown):
            (symbol,) = unknown
            roots = [root for root in sympy.roots(form.subs(values) - size, symbol) if root.is_Integer]
            values |= {symbol: int(roots[0])} if roots else {}
    return values
