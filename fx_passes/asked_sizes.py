"""What a caller asked of each size, beside what the model makes of it: refusals, and notes for the report."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import sympy
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.utils import _pytree as pytree

from fx_passes.errors import CaptureError, UsageError


@dataclass(frozen=True)
class OpenSizes:
    """The sizes of a model's tensor inputs, in the order in which an ONNX file takes them.

    Args:
        dynamic_shapes: for torch, with the bounds that the model needs.
        shapes: one tuple an input; a number, or an expression of symbols where the size is open.
        ranges: the smallest and the largest value of each symbol; None: no largest.
        conditions: what else the model needs of its symbols.
        notes: one line for each bound that the model needs and the caller did not state.
    """

    dynamic_shapes: Any
    shapes: tuple[tuple[int | sympy.Expr, ...], ...] = ()
    ranges: Mapping[sympy.Symbol, tuple[int, int | None]] | None = None
    conditions: tuple[sympy.Basic, ...] = ()
    notes: tuple[str, ...] = ()

    def at(self, values: Mapping[sympy.Symbol, int]) -> tuple[tuple[int, ...], ...] | None:
        """The shapes where the symbols have these values; None where the model does not take them."""
        for symbol, (low, high) in (self.ranges or {}).items():
            value = values.get(symbol, low)
            if value < low or (high is not None and value > high):
                return None
        if any(condition.subs(values) == sympy.false for condition in self.conditions):
            return None
        return tuple(tuple(int(sympy.sympify(n).subs(values)) for n in shape) for shape in self.shapes)


def inputs_of(program: ExportedProgram) -> list[tuple[str, Any]]:
    """Name and captured value of every input."""
    values = {node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"}
    return [(str(name), values.get(name)) for name in program.graph_signature.user_inputs]


def asked_of(model: nn.Module, inputs: Sequence[Any], dynamic_shapes: Any) -> list[dict[int, Any]] | None:
    """For each leaf of ``inputs``, what the caller asked for by dimension; None where that is not known."""
    arguments = inspect.signature(model.forward).bind(*inputs).arguments  # *args are one of them
    if isinstance(dynamic_shapes, dict):
        return list(_pairs(dict(arguments), dynamic_shapes))
    if isinstance(dynamic_shapes, tuple | list) and len(dynamic_shapes) == len(arguments):
        return list(_pairs(list(arguments.values()), dynamic_shapes))
    return None


def _pairs(value: Any, shapes: Any) -> Iterator[dict[int, Any]]:
    """What ``shapes`` say of each leaf of ``value``, in its order."""
    if isinstance(value, Tensor):
        items = shapes.items() if isinstance(shapes, dict) else enumerate(shapes or ())
        asked = {dim: size for dim, size in items if size is not None}
        if beyond := [dim for dim in asked if dim not in range(value.ndim)]:
            raise UsageError(
                f"dynamic_shapes: no dimension {beyond[0]} in an input of shape {tuple(value.shape)}; "
                f"they are 0 to {value.ndim - 1}"
            )
        yield asked
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _pairs(item, shapes.get(key) if isinstance(shapes, dict) else None)
    elif isinstance(value, list | tuple):
        given = list(shapes) if isinstance(shapes, list | tuple) and len(shapes) == len(value) else None
        for item, part in zip(value, given or [None] * len(value), strict=True):
            yield from _pairs(item, part)
    else:
        yield from ({} for _ in pytree.tree_leaves(value))


def insisted(asked: Any) -> bool:
    """Whether the caller insists that a size stays open."""
    return isinstance(asked, Dim | str) or "DYNAMIC" in repr(asked)


def require_open(program: ExportedProgram, sizes: OpenSizes, asked: list[dict[int, Any]] | None) -> None:
    """Refuse a program that fixes a size which was asked to stay open.

    Raises:
        CaptureError: with the input and the dimension.
    """
    named = inputs_of(program)
    if asked is None or len(asked) != len(named):
        return
    fixed = _fixed(sizes)
    for (name, value), wanted in zip(named, asked, strict=True):
        for dim, size in wanted.items() if isinstance(value, Tensor) else ():
            found = value.shape[dim]
            number = found if isinstance(found, int) else fixed.get(found.node.expr)
            if number is not None and insisted(size):
                raise CaptureError(
                    f"{_described(dim, size)} of `{name}` cannot stay open: with this example the model "
                    f"fixes it to {number}; leave it out of dynamic_shapes (--dynamic), or give an example "
                    "of another size"
                )


def _fixed(sizes: OpenSizes) -> dict[sympy.Symbol, int]:
    """The symbols that can have one value only, and that value."""
    found = {s: low for s, (low, high) in (sizes.ranges or {}).items() if low == high}
    for condition in sizes.conditions:
        symbols = condition.free_symbols
        if isinstance(condition, sympy.Eq) and len(symbols) == 1:
            (symbol,) = symbols
            difference = condition.lhs - condition.rhs
            if difference.is_polynomial(symbol):
                roots = [int(r) for r in sympy.roots(difference, symbol) if r.is_Integer and r > 0]
                found |= {symbol: roots[0]} if len(roots) == 1 else {}
    return found


def with_notes(program: ExportedProgram, sizes: OpenSizes, asked: list[dict[int, Any]]) -> OpenSizes:
    """``sizes``, with a note on each size for which the model needs more than was asked for."""
    named = inputs_of(program)
    if len(named) != len(asked):
        return sizes
    notes: dict[str, None] = {}
    first: dict[sympy.Expr, tuple[Any, str]] = {}
    for (name, value), wanted in zip(named, asked, strict=True):
        for dim, size in wanted.items() if isinstance(value, Tensor) else ():
            found = value.shape[dim]
            if isinstance(found, int):
                continue
            title = f"{_described(dim, size)} of `{name}`"
            other, where = first.setdefault(found.node.expr, (size, title))
            needed = _needed(found.node.expr, size, sizes)
            if where != title and not _same(other, size):
                needed = f"the same as {where}"
            elif where != title:
                needed = None
            if needed:
                notes[f"{title}: {needed}, as the model needs it"] = None
    return replace(sizes, notes=tuple(notes))


def _same(one: Any, other: Any) -> bool:
    """Whether the caller gave two sizes one name; sizes without a name are the same where the model says
    so."""
    names = [s.__name__ if isinstance(s, Dim) else s if isinstance(s, str) else None for s in (one, other)]
    return names[0] == names[1]


def _needed(size: sympy.Expr, asked: Any, sizes: OpenSizes) -> str | None:
    """What the model needs of a size beyond what the caller said."""
    if not isinstance(size, sympy.Symbol):
        symbols = size.free_symbols
        if getattr(asked, "root", None) is not None or len(symbols) != 1:  # the caller's own expression
            return None
        factor = sympy.cancel(size / next(iter(symbols)))
        return f"a multiple of {factor}" if factor.is_Integer else f"of the form {size}"
    if (number := _fixed(sizes).get(size)) is not None:
        return f"{number} and no other"
    low, high = (sizes.ranges or {}).get(size, (1, None))
    stated = (getattr(asked, "min", None), getattr(asked, "max", None))
    more = low > max(int(stated[0] or 0), 1)
    fewer = high is not None and (stated[1] is None or high < stated[1])
    if more and fewer:
        return f"from {low} to {high}"
    return f"at least {low}" if more else f"at most {high}" if fewer else None


def _described(dim: int, asked: Any) -> str:
    name = asked.__name__ if isinstance(asked, Dim) else asked if isinstance(asked, str) else None
    return f"size `{name}`" if name else f"size {dim}"
