"""Other sizes at which two files are compared: those that the model takes, if it says which."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count
from typing import Any

import sympy

from fx_passes.capture.asked_sizes import OpenSizes

Shapes = tuple[tuple[int, ...], ...]
# The sizes to try, in this order, from the example's, the smallest and the largest (None: no largest).
Way = Callable[[int, int, int | None], Sequence[int]]

# How far from the smallest or the given size to look for one that the model takes.
_REACH = 64
# How many combinations to look at: where sizes depend on each other, most do not fit.
_TRIES = 10_000


def other_sizes(
    slots: Sequence[Any], example: Sequence[Any], sizes: OpenSizes | None
) -> Iterator[tuple[str, Shapes]]:
    """Named shapes of all inputs, other than those of the example. There are batches of 1 and 3, twice the
    size, an odd size, and the smallest size that the model takes, if it says so.

    Args:
        slots: the inputs of an onnxruntime session.
        example: their arrays.
        sizes: what the model takes. None: the file says which sizes are open, without bounds.
    """
    known = sizes if sizes is not None and len(sizes.shapes) == len(slots) else _from_file(slots)
    here = _values(known, [array.shape for array in example])
    batch = [shape[0] for shape in known.shapes if shape and isinstance(shape[0], sympy.Symbol)]
    rest = [symbol for symbol in here if symbol not in batch]
    bounds = {symbol: (known.ranges or {}).get(symbol, (1, None)) for symbol in here}
    wishes = {"batch of 1": (batch, _from(1)), "batch of 3": (batch, _from(3))}
    wishes |= {"other sizes": (rest, _larger), "odd sizes": (rest, _odd)}
    if known.ranges is not None:
        wishes["smallest sizes"] = (rest, lambda size, low, high: range(low, size))
    seen = {known.at(here)}
    for name, (symbols, way) in wishes.items():
        values = _nearest(known, here, {s: way(here[s], *bounds[s]) for s in symbols})
        if (shapes := known.at(values)) is not None and shapes not in seen:
            seen.add(shapes)
            yield f"batch of {values[batch[0]]}" if symbols is batch else name, shapes


def _from(first: int) -> Way:
    """Sizes from ``first``, or from the smallest, upwards."""
    return lambda size, low, high: [n for n in range(max(first, low), max(first, low) + _REACH) if n != size]


def _larger(size: int, low: int, high: int | None) -> Sequence[int]:
    """Sizes from twice ``size``, or from the largest, downwards to ``size``."""
    return range(2 * size if high is None else min(2 * size, high), size, -1)


def _odd(size: int, low: int, high: int | None) -> Sequence[int]:
    """Odd sizes above this one, then those below, then even ones."""
    above, below = size + 1 + size % 2, size - 1 - size % 2
    reach = _REACH // 2
    return [*range(above, size + reach, 2), *range(below, max(0, size - reach), -2), size + 2, size - 2]


def _nearest(
    sizes: OpenSizes, here: Mapping[sympy.Symbol, int], ways: Mapping[sympy.Symbol, Sequence[int]]
) -> dict[sympy.Symbol, int]:
    """For each size, the first value that the model takes with the others; else that of the example."""
    fixed = {symbol: value for symbol, value in here.items() if symbol not in ways}
    return next(_along(sizes, fixed, here, list(ways.items()), count()), dict(here))


def _along(
    sizes: OpenSizes,
    values: dict[sympy.Symbol, int],
    here: Mapping[sympy.Symbol, int],
    ways: Sequence[tuple[sympy.Symbol, Sequence[int]]],
    tries: Iterator[int],
) -> Iterator[dict[sympy.Symbol, int]]:
    """``values``, with values of each way that the model takes; without one, those of the example."""
    if not ways:
        yield values
        return
    (symbol, way), *rest = ways
    for value in (*way[:_REACH], here[symbol]):
        more = values | {symbol: value}
        if next(tries) < _TRIES and sizes.takes(more):
            yield from _along(sizes, more, here, rest, tries)


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
