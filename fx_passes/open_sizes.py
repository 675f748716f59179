"""Which sizes of a model's inputs stay open: what the caller asked for, and what the model makes of it.

A model may need more of a size than ``dynamic_shapes`` say: nine rows at least, an even number, as many as
columns. ``torch.export`` then refuses, and suggests other ``dynamic_shapes``. ``torch.onnx.export`` tries
again with those, and so it is done here, with the same settings. A size that the model fixes is refused:
the exporter would fix it without a word.
"""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sympy
import torch
from torch import Tensor, nn
from torch._dynamo.exc import UserError
from torch.export import Dim, ExportedProgram
from torch.export.dynamic_shapes import refine_dynamic_shapes_from_suggested_fixes
from torch.fx.experimental import _config as symbolic
from torch.utils import _pytree as pytree

from fx_passes.errors import CaptureError

log = logging.getLogger(__name__)

# A suggestion may lead to the next one: a size that is even, and then at least 4.
_ROUNDS = 4


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


def export_open(
    model: nn.Module, inputs: Sequence[Any], dynamic_shapes: Any
) -> tuple[ExportedProgram, OpenSizes]:
    """``torch.export`` of ``model`` with open sizes, as ``torch.onnx.export`` does it.

    Args:
        inputs: positional arguments of ``model``; an open size may be 1 in them.
        dynamic_shapes: as for ``torch.onnx.export``: for each open size a ``Dim``, a name, ``Dim.DYNAMIC`` or
            ``Dim.AUTO``.

    Raises:
        CaptureError: the model fixes a size that is to stay open; ``Dim.AUTO`` leaves that to the model.
        Exception: whatever torch or the model raises.

    Example:
        >>> conv = nn.Conv1d(1, 1, 9).eval()
        >>> _, sizes = export_open(conv, (torch.rand(1, 1, 30),), ({2: Dim("length")},))
        >>> sizes.notes
        ('size `length` of `input`: at least 9, as the model needs it',)
    """
    try:
        program, refined = _exported(model, tuple(inputs), dynamic_shapes)
    except Exception:
        _blame_fixed_size(model, tuple(inputs), dynamic_shapes)
        raise
    sizes = _sizes_of(program, refined)
    asked = _asked(model, inputs, dynamic_shapes)
    _require_open(program, sizes, asked)
    return program, sizes if asked is None else _with_notes(program, sizes, asked)


def open_sizes(
    model: nn.Module | ExportedProgram, inputs: Sequence[Any], dynamic_shapes: Any
) -> OpenSizes | None:
    """What ``model`` makes of ``dynamic_shapes``; None where all sizes are fixed.

    Where torch cannot export the model, what the caller asked for is all that is known.

    Raises:
        CaptureError: the model fixes a size that is to stay open.
    """
    if dynamic_shapes is None:
        return None
    if isinstance(model, ExportedProgram):
        return _sizes_of(model, dynamic_shapes)
    try:
        return export_open(model, inputs, dynamic_shapes)[1]
    except CaptureError:
        raise
    except (Exception, SystemExit):  # whatever the model raises: there may be another route
        log.debug("torch.export failed", exc_info=True)
        return OpenSizes(dynamic_shapes)


def _exported(model: nn.Module, inputs: tuple[Any, ...], dynamic_shapes: Any) -> tuple[ExportedProgram, Any]:
    """The program, and the ``dynamic_shapes`` that torch accepted, names of sizes among them."""
    shapes = dynamic_shapes
    for left in reversed(range(_ROUNDS)):
        try:
            # As torch.onnx.export calls it: a size of 1 stays open, what can wait is checked at run time.
            with symbolic.patch(backed_size_oblivious=True), warnings.catch_warnings():  # type: ignore[attr-defined]
                warnings.simplefilter("ignore")
                program = torch.export.export(
                    model,
                    inputs,
                    dynamic_shapes=_replaced(shapes, str, Dim.DYNAMIC),
                    prefer_deferred_runtime_asserts_over_guards=True,
                )
            return program, shapes
        except UserError as error:
            refined = _refined(shapes, error)
            if refined is None or not left:
                raise
            shapes = refined
    raise AssertionError("unreachable")


def _refined(shapes: Any, error: UserError) -> Any:
    """``shapes`` with what torch suggests; None where it suggests nothing that can be done."""
    named = pytree.tree_map(lambda leaf: leaf if isinstance(leaf, Dim) else None, shapes)
    try:
        fixed = refine_dynamic_shapes_from_suggested_fixes(error.msg, named)
    except Exception:  # no suggestions in it, or of a kind that torch itself does not follow
        return None
    old, spec = pytree.tree_flatten(shapes)
    new = pytree.tree_leaves(fixed)
    if len(old) != len(new):
        return None
    return pytree.tree_unflatten(
        [n if isinstance(o, Dim) else o for o, n in zip(old, new, strict=True)], spec
    )


def _replaced(shapes: Any, kind: type | tuple[type, ...], by: Any) -> Any:
    return pytree.tree_map(lambda leaf: by if isinstance(leaf, kind) else leaf, shapes)


def _sizes_of(program: ExportedProgram, dynamic_shapes: Any) -> OpenSizes:
    shapes = tuple(
        tuple(n if isinstance(n, int) else n.node.expr for n in value.shape)
        for _, value in _inputs(program)
        if isinstance(value, Tensor)
    )
    symbols = {s for shape in shapes for n in shape for s in getattr(n, "free_symbols", ())}
    ranges = {}
    for symbol in symbols:
        bounds = program.range_constraints.get(symbol)
        low, high = (bounds.lower, bounds.upper) if bounds is not None else (0, sympy.oo)
        finite = getattr(high, "is_finite", True) and high < 2**31
        ranges[symbol] = (max(int(low), 1), int(high) if finite else None)
    conditions = tuple(
        condition
        for node in program.graph.nodes
        if node.target is torch.ops.aten._assert_scalar.default
        and isinstance(node.args[0], torch.fx.Node)
        and (condition := _condition(node.args[0].meta.get("val"))) is not None
        and condition.free_symbols <= symbols
    )
    return OpenSizes(dynamic_shapes, shapes, ranges, conditions)


def _condition(value: Any) -> sympy.Basic | None:
    return value.node.expr if isinstance(value, torch.SymBool) else None


def _inputs(program: ExportedProgram) -> list[tuple[str, Any]]:
    """Name and captured value of every input."""
    values = {node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"}
    return [(str(name), values.get(name)) for name in program.graph_signature.user_inputs]


def _asked(model: nn.Module, inputs: Sequence[Any], dynamic_shapes: Any) -> list[dict[int, Any]] | None:
    """For each leaf of ``inputs``, what the caller asked for by dimension; None where that is not known."""
    if isinstance(dynamic_shapes, dict):
        arguments = inspect.signature(model.forward).bind(*inputs).arguments
        return list(_pairs(dict(arguments), dynamic_shapes))
    if isinstance(dynamic_shapes, tuple | list) and len(dynamic_shapes) == len(inputs):
        return list(_pairs(list(inputs), dynamic_shapes))
    return None


def _pairs(value: Any, shapes: Any) -> Iterator[dict[int, Any]]:
    """What ``shapes`` say of each leaf of ``value``, in its order."""
    if isinstance(value, Tensor):
        items = shapes.items() if isinstance(shapes, dict) else enumerate(shapes or ())
        yield {dim % value.ndim: size for dim, size in items if size is not None}
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _pairs(item, shapes.get(key) if isinstance(shapes, dict) else None)
    elif isinstance(value, list | tuple):
        given = list(shapes) if isinstance(shapes, list | tuple) and len(shapes) == len(value) else None
        for item, part in zip(value, given or [None] * len(value), strict=True):
            yield from _pairs(item, part)
    else:
        yield from ({} for _ in pytree.tree_leaves(value))


def _is_open(asked: Any) -> bool:
    """Whether the caller insists that a size stays open."""
    return isinstance(asked, Dim | str) or "DYNAMIC" in repr(asked)


def _blame_fixed_size(model: nn.Module, inputs: tuple[Any, ...], dynamic_shapes: Any) -> None:
    """Where torch cannot keep a size open: say which one, found by leaving all of them to torch."""
    asked = _asked(model, inputs, dynamic_shapes)
    free = pytree.tree_map(lambda leaf: Dim.AUTO if _is_open(leaf) else leaf, dynamic_shapes)
    try:
        program, _ = _exported(model, inputs, free)
    except (Exception, SystemExit):  # then it is not the open sizes
        return
    _require_open(program, _sizes_of(program, None), asked)


def _require_open(program: ExportedProgram, sizes: OpenSizes, asked: list[dict[int, Any]] | None) -> None:
    named = _inputs(program)
    if asked is None or len(asked) != len(named):
        return
    fixed = _fixed(sizes)
    for (name, value), wanted in zip(named, asked, strict=True):
        for dim, size in wanted.items() if isinstance(value, Tensor) else ():
            found = value.shape[dim]
            number = found if isinstance(found, int) else fixed.get(found.node.expr)
            if number is not None and _is_open(size):
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


def _with_notes(program: ExportedProgram, sizes: OpenSizes, asked: list[dict[int, Any]]) -> OpenSizes:
    named = _inputs(program)
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
    return OpenSizes(sizes.dynamic_shapes, sizes.shapes, sizes.ranges, sizes.conditions, tuple(notes))


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
