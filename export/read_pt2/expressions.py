"""Texts in a ``.pt2`` that torch evaluates as Python: sizes (by sympy) and guards. Only arithmetic is
allowed."""

from __future__ import annotations

import ast
import re

from fx_passes.errors import LoadError

_LONGEST = 20_000
# As ``sympy.srepr`` writes them, and torch's own functions of sizes.
_FUNCTIONS = frozenset(
    "Integer Float Rational Add Mul Pow Mod Max Min Abs floor ceiling And Or Not "
    "Equality Unequality GreaterThan LessThan StrictGreaterThan StrictLessThan Eq Ne Ge Le Gt Lt "
    "FloorDiv ModularIndexing Where PythonMod CleanDiv CeilToInt FloorToInt CeilDiv LShift RShift "
    "PowByNatural FloatPow FloatTrueDiv IntTrueDiv TruncToFloat TruncToInt RoundToInt RoundDecimal ToFloat "
    "Identity Symbol IsNonOverlappingAndDenseIndicator Piecewise ExprCondPair".split()
)
_POWERS = frozenset("Pow PowByNatural FloatPow LShift RShift".split())
_TEXTS = {"Symbol": r"[a-z]{1,4}\d+", "Float": r"-?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|inf|nan"}
_KEYWORDS = frozenset("positive integer nonnegative negative finite real zero precision dps".split())
# In a guard: sizes of the inputs, and comparisons of them.
_GUARD_METHODS = frozenset("size stride storage_offset dim".split())
_GUARD_FUNCTIONS = frozenset("max min abs int float".split())
_MATH = frozenset("floor ceil trunc sqrt isnan inf nan".split())
_OPERATORS = (
    ast.BinOp,
    ast.UnaryOp,
    ast.BoolOp,
    ast.Compare,
    ast.operator,
    ast.unaryop,
    ast.boolop,
    ast.cmpop,
    ast.expr_context,
)


def require_expression(text: str) -> None:
    """Check that ``text`` is a size as torch writes it.

    Raises:
        LoadError: it is something else.

    Example:
        >>> require_expression("Mul(Integer(2), Symbol('s77', positive=True, integer=True))")
        >>> require_expression("__import__('os')")
        Traceback (most recent call last):
        fx_passes.errors.LoadError: its sizes hold more than arithmetic: "__import__('os')"
    """
    if not _all_pass(text, _in_size):
        raise LoadError(f'its sizes hold more than arithmetic: "{text[:80]}"')


def require_guard(text: str) -> None:
    """Check that ``text`` compares sizes of inputs.

    Raises:
        LoadError: it is something else.

    Example:
        >>> require_guard("(L['x'].size()[0] % 2) == 0")
    """
    if not _all_pass(text, _in_guard):
        raise LoadError(f'its guards hold more than comparisons of sizes: "{text[:80]}"')


def _all_pass(text: str, passes: object) -> bool:
    try:
        tree = ast.parse(text, mode="eval") if len(text) <= _LONGEST else None
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return tree is not None and passes(tree.body)  # type: ignore[operator]


def _in_size(node: ast.AST, power: bool = False) -> bool:
    """Whether ``node`` is a call of known functions. ``power``: it is inside a power, which may contain no
    other power."""
    if isinstance(node, ast.Name):
        return node.id in ("true", "false", "oo", "int_oo")
    if isinstance(node, ast.UnaryOp):
        return isinstance(node.op, ast.USub) and _is_number(node.operand)
    if isinstance(node, ast.Constant):
        return _is_number(node)
    if isinstance(node, ast.Tuple):
        return all(_in_size(item, power) for item in node.elts)
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        return False
    name, args = node.func.id, node.args
    keywords = all(k.arg in _KEYWORDS and isinstance(k.value, ast.Constant) for k in node.keywords)
    if name not in _FUNCTIONS or not keywords:
        return False
    if name in _TEXTS and len(args) == 1 and isinstance(args[0], ast.Constant):
        value = args[0].value
        return re.fullmatch(_TEXTS[name], value) is not None if isinstance(value, str) else name == "Float"
    if name in _POWERS:
        # Of constants, sympy would compute it: a few letters would take for ever.
        return not power and len(args) == 2 and _in_size(args[0], True) and _is_exponent(args[1])
    return name != "Symbol" and all(_in_size(argument, power) for argument in args)


def _is_exponent(node: ast.AST) -> bool:
    """A symbol, or a small number."""
    if not isinstance(node, ast.Call) or not _in_size(node, True) or not isinstance(node.func, ast.Name):
        return False
    if node.func.id not in ("Integer", "Rational"):
        return node.func.id == "Symbol"
    return all(abs(n.value) <= 64 for n in ast.walk(node) if isinstance(n, ast.Constant))  # type: ignore[arg-type]


def _is_number(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and type(node.value) in (int, float)


def _in_guard(node: ast.AST) -> bool:
    """Whether ``node`` is arithmetic, ``L['x']``, a size of it, or a known function."""
    if isinstance(node, ast.Name):
        return node.id == "L"
    if isinstance(node, ast.Constant):
        return isinstance(node.value, int | float | bool)
    if isinstance(node, ast.Subscript):
        index = node.slice.operand if isinstance(node.slice, ast.UnaryOp) else node.slice
        return isinstance(index, ast.Constant) and _in_guard(node.value)
    if isinstance(node, ast.Attribute):
        return isinstance(node.value, ast.Name) and node.value.id == "math" and node.attr in _MATH
    if isinstance(node, ast.Call):
        return not node.keywords and _guard_call(node.func) and all(_in_guard(a) for a in node.args)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow | ast.LShift):
        small = isinstance(node.right, ast.Constant) and node.right.value in range(65)
        return small and _in_guard(node.left) and "**" not in ast.unparse(node.left)
    children = list(ast.iter_child_nodes(node))
    return isinstance(node, _OPERATORS) and all(_in_guard(child) for child in children)


def _guard_call(function: ast.AST) -> bool:
    if isinstance(function, ast.Name):
        return function.id in _GUARD_FUNCTIONS
    method = isinstance(function, ast.Attribute) and function.attr in _GUARD_METHODS
    return _in_guard(function) or (method and _in_guard(function.value))  # type: ignore[attr-defined]
