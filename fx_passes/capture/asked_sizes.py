"""Compares the sizes that a caller asked for with the sizes that the model needs: errors and notes."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import sympy
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from fx_passes.errors import CaptureError, UsageError
from fx_passes.graph.torch_internals import pytree

# The largest value that torch gives to a size without a limit.
_NO_LIMIT: Any = Dim("any").max


@dataclass(frozen=True)
class OpenSizes:
    """The sizes of a model's tensor inputs, in the order in which an ONNX file takes them.

    Args:
        dynamic_shapes: for torch, with the bounds that the model needs.
        shapes: one tuple for each input. A size is a number, or an expression of symbols if it is open.
        ranges: the smallest and the largest value of each symbol. None: no largest.
        conditions: further conditions of the model on its symbols.
        notes: one line for each bound that the model needs and the caller did not state.
        example: the example that torch takes, if it does not take the given one.
    """

    dynamic_shapes: Any
    shapes: tuple[tuple[int | sympy.Expr, ...], ...] = ()
    ranges: Mapping[sympy.Symbol, tuple[int, int | None]] | None = None
    conditions: tuple[sympy.Basic, ...] = ()
    notes: tuple[str, ...] = ()
    example: tuple[Any, ...] | None = None

    def takes(self, values: Mapping[sympy.Symbol, int]) -> bool:
        """Whether the model takes these values. A symbol without one may have any that the model takes."""
        ranges = (self.ranges or {}).items()
        if not all(low <= values.get(s, low) <= (high or math.inf) for s, (low, high) in ranges):
            return False
        return not any(condition.subs(values) == sympy.false for condition in self.conditions)

    def at(self, values: Mapping[sympy.Symbol, int]) -> tuple[tuple[int, ...], ...] | None:
        """The shapes for these values of the symbols. None if the model does not take them."""
        if not self.takes(values):
            return None
        return tuple(tuple(int(sympy.sympify(n).subs(values)) for n in shape) for shape in self.shapes)


def inputs_of(program: ExportedProgram) -> list[tuple[str, Any]]:
    """The name and the captured value of every input."""
    values = {node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"}
    return [(str(name), values.get(name)) for name in program.graph_signature.user_inputs]


def arguments_of(model: nn.Module | ExportedProgram, inputs: Sequence[Any]) -> dict[str, Any]:
    """The arguments of a call, by name. ``*args`` are one argument. For a program: the arguments of its
    capture.

    Args:
        inputs: positional arguments of a model that is no program.

    Raises:
        UsageError: ``inputs`` do not fit the model.
    """
    if not isinstance(model, ExportedProgram):
        try:
            return dict(inspect.signature(model.forward).bind(*inputs).arguments)
        except TypeError as error:
            raise UsageError(f"the example inputs do not fit the model: {error}") from error
    values = [value for _, value in inputs_of(model)]
    args, kwargs = pytree.tree_unflatten(values, model.call_spec.in_spec)
    signature = model.module_call_graph[0].signature
    known = signature.forward_arg_names if signature else None
    names = known or [f"argument {i}" for i in range(len(args) + len(kwargs))]
    return dict(zip(names, (*args, *kwargs.values()), strict=True))


def asked_of(arguments: Mapping[str, Any], dynamic_shapes: Any) -> list[dict[int, Any]]:
    """For each leaf of ``arguments``, the sizes that the caller asked for, by dimension.

    Raises:
        UsageError: ``dynamic_shapes`` do not fit the arguments.
    """
    if not dynamic_shapes:
        return [{} for _ in pytree.tree_leaves(dict(arguments))]
    if isinstance(dynamic_shapes, dict):
        return list(_pairs(dict(arguments), dynamic_shapes, "dynamic_shapes"))
    if not isinstance(dynamic_shapes, tuple | list) or len(dynamic_shapes) != len(arguments):
        raise UsageError(
            f"dynamic_shapes needs one entry (or None) for each argument ({', '.join(arguments)})"
        )
    return list(_pairs(list(arguments.values()), dynamic_shapes, "dynamic_shapes"))


def _pairs(value: Any, shapes: Any, where: str) -> Iterator[dict[int, Any]]:
    """The sizes that ``shapes`` ask for, for each leaf of ``value`` in order. None asks for nothing.

    Args:
        where: the place of ``value`` in the ``dynamic_shapes``, for errors.
    """
    registered = pytree.SUPPORTED_NODES.get(type(value))
    if isinstance(value, Tensor):
        yield _asked_of_tensor(value, shapes, where)
    elif isinstance(value, dict):
        if shapes is not None and (not isinstance(shapes, dict) or set(shapes) != set(value)):
            raise UsageError(f"{where} needs one entry for each of {', '.join(map(str, value))}")
        for key, item in value.items():
            yield from _pairs(item, shapes and shapes[key], f"{where}[{key!r}]")
    elif isinstance(value, list | tuple):
        if shapes is not None and (not isinstance(shapes, list | tuple) or len(shapes) != len(value)):
            raise UsageError(f"{where} needs {len(value)} entries in a list or tuple")
        for i, item in enumerate(value):
            yield from _pairs(item, shapes and shapes[i], f"{where}[{i}]")
    elif registered is not None:  # a user's class: torch takes the shapes of its leaves
        yield from _pairs(list(registered.flatten_fn(value)[0]), shapes, where)
    else:
        yield {}


def _asked_of_tensor(value: Tensor, shapes: Any, where: str) -> dict[int, Any]:
    if shapes is not None and not isinstance(shapes, dict | list | tuple):
        raise UsageError(f"{where} must be a dict of dimensions, such as {{0: Dim('batch')}}, got {shapes!r}")
    items = shapes.items() if isinstance(shapes, dict) else enumerate(shapes or ())
    asked = {dim: size for dim, size in items if size is not None}
    for dim, size in asked.items():
        if dim not in range(value.ndim):
            raise UsageError(
                f"{where}: no dimension {dim} in an input of shape {tuple(value.shape)}; "
                f"they are 0 to {value.ndim - 1}"
            )
        low, high = (size, size) if isinstance(size, int) else _stated(size)
        found = value.shape[dim]
        if isinstance(found, int) and ((low or 0) > found or (high is not None and high < found)):
            said = low if low == high else f"{low or 0} to {'any' if high is None else high}"
            raise UsageError(
                f"{where}: {_described(dim, size)} must be {said}, but it is {found} in the example"
            )
    return asked


def _stated(asked: Any) -> tuple[Any, Any]:
    """The smallest and the largest size that the caller stated. None: not stated."""
    if getattr(asked, "root", None) is not None:  # an expression of another size, whose bounds torch checks
        return None, None
    low, high = getattr(asked, "min", None), getattr(asked, "max", None)
    return low, None if high == _NO_LIMIT else high


def name_of(asked: Any) -> str | None:
    """The name that the caller gave to a size, or None."""
    return asked.__name__ if isinstance(asked, Dim) else asked if isinstance(asked, str) else None


def insisted(asked: Any) -> bool:
    """Whether the caller requires that a size stays open."""
    return isinstance(asked, Dim | str) or "DYNAMIC" in repr(asked)


def require_open(
    program: ExportedProgram, sizes: OpenSizes, asked: Sequence[Mapping[int, Any]], *, captured: bool = False
) -> None:
    """Raise an error if the program fixes a size that the caller requires to stay open.

    Args:
        captured: the caller captured the program earlier.
    """
    fixed = _fixed(sizes)
    for (name, value), wanted in zip(inputs_of(program), asked, strict=True):
        for dim, size in wanted.items() if isinstance(value, Tensor) else ():
            found = value.shape[dim]
            number = found if isinstance(found, int) else fixed.get(found.node.expr)
            if number is None or not insisted(size):
                continue
            why = (
                f"the program was exported with {number}; export it again with that size open"
                if captured
                else f"with this example the model fixes it to {number}; leave it out of dynamic_shapes "
                "(--dynamic), or give an example of another size"
            )
            raise CaptureError(f"{_described(dim, size)} of `{name}` cannot stay open: {why}")


def _fixed(sizes: OpenSizes) -> dict[sympy.Symbol, int]:
    """The symbols that can have only one value, with that value."""
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


def with_notes(program: ExportedProgram, sizes: OpenSizes, asked: Sequence[Mapping[int, Any]]) -> OpenSizes:
    """``sizes`` with a line for each bound that the caller did not state."""
    notes: dict[str, None] = {}
    first: dict[sympy.Expr, tuple[Any, str]] = {}
    for (name, value), wanted in zip(inputs_of(program), asked, strict=True):
        for dim, size in wanted.items() if isinstance(value, Tensor) else ():
            found = value.shape[dim]
            if isinstance(found, int):
                continue
            title = f"{_described(dim, size)} of `{name}`"
            other, where = first.setdefault(found.node.expr, (size, title))
            needed = _needed(found.node.expr, size, sizes)
            # Sizes without a name are the same if the model says so.
            if where != title and name_of(other) != name_of(size):
                needed = f"the same as {where}"
            elif where != title:
                needed = None
            if needed:
                notes[f"{title}: {needed}, as the model needs it"] = None
    return replace(sizes, notes=tuple(notes))


def _needed(size: sympy.Expr, asked: Any, sizes: OpenSizes) -> str | None:
    """The bounds that the model needs for a size, and the caller did not state."""
    if not isinstance(size, sympy.Symbol):
        symbols = size.free_symbols
        if getattr(asked, "root", None) is not None or len(symbols) != 1:  # the caller's own expression
            return None
        factor = sympy.cancel(size / next(iter(symbols)))
        return f"a multiple of {factor}" if factor.is_Integer else f"of the form {size}"
    if (number := _fixed(sizes).get(size)) is not None:
        return f"{number} and no other"
    low, high = (sizes.ranges or {}).get(size, (1, None))
    stated = _stated(asked)
    more = low > max(int(stated[0] or 0), 1)
    fewer = high is not None and (stated[1] is None or high < stated[1])
    if more and fewer:
        return f"from {low} to {high}"
    return f"at least {low}" if more else f"at most {high}" if fewer else None


def _described(dim: int, asked: Any) -> str:
    name = name_of(asked)
    return f"size `{name}`" if name else f"size {dim}"
