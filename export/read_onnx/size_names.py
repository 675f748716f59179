"""Names of open sizes that are arithmetic on other names, as exporters and tools for shapes write them.

``s16 + 10`` and ``64*s47`` say how a size follows from those of the inputs. A name is read so only if each
name in it is an open size of an input. It is parsed, not evaluated: a file may hold any text.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from typing import Any

import sympy

_LONGEST = 200
_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
    ast.FloorDiv: lambda a, b: sympy.floor(a / b),
    ast.Mod: lambda a, b: a % b,
}
_CALLS: dict[str, Any] = {
    "floor": sympy.floor,
    "ceiling": sympy.ceiling,
    "Max": sympy.Max,
    "Min": sympy.Min,
    "max": sympy.Max,
    "min": sympy.Min,
}


def expression_of(name: str, symbols: Mapping[str, sympy.Symbol]) -> sympy.Expr | None:
    """The size that ``name`` says, in symbols; None if it says nothing.

    Args:
        symbols: those of the open sizes of the inputs, by name.

    Example:
        >>> expression_of("2*(h // 3) + 1", {"h": sympy.Symbol("h", integer=True)})
        2*floor(h/3) + 1
        >>> expression_of("Conv_7_dim_2", {"h": sympy.Symbol("h", integer=True)})
    """
    if name in symbols:
        return symbols[name]
    try:
        form = _value(ast.parse(name, mode="eval").body, symbols) if len(name) <= _LONGEST else None
        return None if form is None or form.has(sympy.zoo, sympy.nan) else form
    except (SyntaxError, ValueError, KeyError, TypeError, ZeroDivisionError, RecursionError, MemoryError):
        return None


def _value(node: ast.AST, symbols: Mapping[str, sympy.Symbol]) -> Any:
    """Raises KeyError or TypeError for anything but arithmetic on the symbols."""
    if isinstance(node, ast.Name):
        return symbols[node.id]
    if isinstance(node, ast.Constant) and type(node.value) is int and abs(node.value) < 1 << 31:
        return sympy.Integer(node.value)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_value(node.operand, symbols)
    if isinstance(node, ast.BinOp):
        return _BINARY[type(node.op)](_value(node.left, symbols), _value(node.right, symbols))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
        return _CALLS[node.func.id](*(_value(argument, symbols) for argument in node.args))
    raise TypeError(f"{type(node).__name__} is no arithmetic")
