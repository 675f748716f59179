"""Names of open sizes that are arithmetic on those of the inputs. Nothing in a name is evaluated."""

from __future__ import annotations

import pytest
import sympy

from export.read_onnx.size_names import expression_of

SYMBOLS = {name: sympy.Symbol(name, integer=True) for name in ("h", "s16", "batch size")}
H = SYMBOLS["h"]


@pytest.mark.parametrize(
    ("name", "value"),
    [("h", 7), ("h + 10", 17), ("64*h", 448), ("2*(h // 3) + 1", 5), ("floor(h/2) + 1", 4), ("-h + 8", 1),
     ("Max(h, 9)", 9), ("ceiling(h/2)", 4), ("h % 4", 3)],
)  # fmt: skip
def test_arithmetic(name: str, value: int) -> None:
    """As torch's exporter and tools for shapes write it."""
    form = expression_of(name, SYMBOLS)
    assert form is not None
    assert form.subs({H: 7}) == value


def test_any_name_of_an_input() -> None:
    """Also one that is no identifier."""
    assert expression_of("batch size", SYMBOLS) == SYMBOLS["batch size"]


@pytest.mark.parametrize(
    "name",
    ["w", "h + w", "", "h h", "__import__('os').system('true')", "h.free_symbols", "h**9999999", "f(h)",
     "floor(h, evaluate=False)", "h/0", "(" * 500, "h" + "+h" * 500, "99999999999999*h", "'h'", "[h]"],
)  # fmt: skip
def test_what_says_nothing(name: str) -> None:
    """Other names, other code, and numbers that no size has."""
    assert expression_of(name, SYMBOLS) is None
