"""Guards and sizes in a .pt2 file: only comparisons and arithmetic are accepted."""

from __future__ import annotations

import pytest

from export.read_pt2.expressions import require_expression, require_guard
from fx_passes.errors import LoadError


@pytest.mark.parametrize(
    "text",
    [
        "L['x'].size()[0] % 2 == 0",
        "max(1, L['x'].size()[1] // 2) != L['d']['a'][0].size()[0]",
        "not (L['x'].size()[0] == 1 and L['x'].stride()[0] <= 2**31)",
        "math.isnan(L['x'])",
    ],
)
def test_guards_of_torch_pass(text: str) -> None:
    """torch writes such comparisons of sizes. They are accepted."""
    require_guard(text)


@pytest.mark.parametrize(
    "text",
    [
        "L.__class__",
        "L['x'].__class__.__init__.__globals__",
        "().__class__",
        "[x for x in (1,)]",
        "(lambda: 1)()",
        "L['x'].size().__class__",
        "math.__loader__",
        "2**(2**64)",
        "(2**64)**64",
        "open('x')",
        "L['x'].numpy()",
        "L[open('x')]",
        "1 if L else 2",
        "f'{1}'",
        "a := 1",
        "1; 2",
        "",
    ],
)
def test_other_guards_do_not(text: str) -> None:
    """A guard with an attribute or with another call is refused.

    A guard is also refused if its numbers take for ever to compute.
    """
    with pytest.raises(LoadError, match="more than comparisons"):
        require_guard(text)


@pytest.mark.parametrize(
    "text",
    [
        "Symbol('__import__')",
        "Symbol('s0', positive=open('x'))",
        "Integer('1)')",
        "Float('1);x')",
        "Function('f')",
        "s0",
        "Integer(1).__class__",
        "Pow(Pow(Integer(9), Integer(60)), Integer(60))",
        "Pow(Integer(2), Mul(Integer(64), Integer(64)))",
        "LShift(Integer(1), Integer(10000000000))",
        "Max(*Integer(1))",
        "lambdify(Integer(1))",
        "Add(Integer(1), **Symbol('s0'))",
        "1" * 30_000,
    ],
)
def test_other_sizes_do_not_pass(text: str) -> None:
    """A size is refused if it is no arithmetic. It is also refused if sympy would compute it for ever."""
    with pytest.raises(LoadError, match="more than arithmetic"):
        require_expression(text)
