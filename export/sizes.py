"""Other sizes to compare two files at: those that the model takes, where it says which."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import sympy

from fx_passes.asked_sizes import OpenSizes

Shapes = tuple[tuple[int, ...], ...]

# How far from the smallest or the given size to look for one that the model takes.
_REACH = 64


def other_sizes(
    slots: Sequence[Any], example: Sequence[Any], sizes: OpenSizes | None
) -> Iterator[tuple[str, Shapes]]:
    """Named shapes of all inputs, other than the example's: batches of 1 and 3; twice the size, an odd one,
    and where the model says what it needs, the smallest that it takes.

    Args:
        slots: the inputs of an onnxruntime session.
        example: their arrays.
        sizes: what the model takes; None: what the file says, which has no bounds.
    """
    bounded = sizes is not None and len(sizes.shapes) == len(slots)
    known = sizes if sizes is not None and bounded else _from_file(slots)
    here = _values(known, [array.shape for array in example])
    batch = [shape[0] for shape in known.shapes if shape and isinstance(shape[0], sympy.Symbol)]
    rest = [symbol for symbol in here if symbol not in batch]
    for size in (1, 3) if batch else ():
        if (shapes := known.at(here | dict.fromkeys(batch, size))) is not None:
            yield f"batch of {size}", shapes
    if rest:
        wishes = {
            "other sizes": [range(2 * here[s], here[s], -1) for s in rest],
            "odd sizes": [range(here[s] + 1 + here[s] % 2, here[s] + _REACH) for s in rest],
        }
        if bounded:
            wishes["smallest sizes"] = [range((known.ranges or {})[s][0], here[s]) for s in rest]
        for name, ways in wishes.items():
            if (shapes := _nearest(known, here, dict(zip(rest, ways, strict=True)))) is not None:
                yield name, shapes


def _nearest(
    sizes: OpenSizes, here: Mapping[sympy.Symbol, int], ways: Mapping[sympy.Symbol, Sequence[int]]
) -> Shapes | None:
    """The shapes with the first value of each way that the model takes; None where that is the example."""
    values = dict(here)
    for symbol, way in ways.items():
        taken = (value for value in way[:_REACH] if sizes.at(values | {symbol: value}) is not None)
        values[symbol] = next(taken, values[symbol])
    return sizes.at(values) if values != here else None


def _from_file(slots: Sequence[Any]) -> OpenSizes:
    """What a file says: a name for each open size, or nothing."""

    def size(stated: Any, place: str) -> Any:
        return stated if isinstance(stated, int) else sympy.Symbol(str(stated or place))

    shapes = tuple(
        tuple(size(stated, f"{slot.name}[{dim}]") for dim, stated in enumerate(slot.shape)) for slot in slots
    )
    return OpenSizes(None, shapes)


def _values(sizes: OpenSizes, shapes: Sequence[Sequence[int]]) -> dict[sympy.Symbol, int]:
    """What each symbol is in the example."""
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
