"""A lowered graph refuses other values, and arguments that are missing or too many."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from blurred import OPTIONS, Options, image, refusal
from torch.fx import GraphModule

from fx_passes.lower import lower

NAN, ZERO = {**OPTIONS, "s": float("nan")}, {**OPTIONS, "s": 0.0}


OTHER: list[tuple[dict[str, Any], str, Any]] = [
    (OPTIONS, "k", 3),
    (OPTIONS, "k", 2.0),
    (OPTIONS, "k", True),
    (OPTIONS, "k", None),
    (OPTIONS, "k", torch.tensor(2)),
    (OPTIONS, "s", 0.25),
    (OPTIONS, "s", float("nan")),
    (OPTIONS, "s", float("inf")),
    (OPTIONS, "s", 1),
    (ZERO, "s", -0.0),
    (ZERO, "s", 0),
    (ZERO, "s", False),
    (NAN, "s", 0.5),
    (OPTIONS, "flag", False),
    (OPTIONS, "flag", 1),
    (OPTIONS, "mode", "minus"),
    (OPTIONS, "mode", ["plus"]),
    (OPTIONS, "mode", None),
    (OPTIONS, "none", 1),
    (OPTIONS, "none", image()),
    (OPTIONS, "none", ()),
]


@functools.cache
def options_graph(which: int) -> GraphModule:
    return lower(Options(), "static", (image(), *(OPTIONS, NAN, ZERO)[which].values()))


@pytest.mark.parametrize("by_name", [False, True])
@pytest.mark.parametrize(("values", "name", "other"), OTHER)
def test_another_value_is_refused(values: dict[str, Any], name: str, other: Any, by_name: bool) -> None:
    """Values of every kind are refused, by position and by name. The same values pass."""
    graph, x = options_graph([OPTIONS, NAN, ZERO].index(values)), image()
    changed = {**values, name: other}
    if by_name:
        torch.testing.assert_close(graph(x, **values), Options()(x, **values), equal_nan=True)
        said = refusal(graph, **changed, x=x)
    else:
        torch.testing.assert_close(graph(x, *values.values()), Options()(x, **values), equal_nan=True)
        said = refusal(graph, x, *changed.values())
    assert said.startswith(f"input `{name}`: ")


def test_names_come_in_any_order() -> None:
    """As in Python, some arguments come by position and the others by name."""
    graph, x = options_graph(0), image()
    expected = graph(x, *OPTIONS.values())
    assert torch.equal(graph(**dict(reversed(OPTIONS.items())), x=x), expected)
    assert torch.equal(graph(x, 2, mode="plus", none=None, flag=True, s=0.5), expected)


@pytest.mark.parametrize(
    ("args", "kwargs", "says"),
    [
        ((image(), 2), {}, "input `s` is missing"),
        ((), {}, "input `x` is missing"),
        ((image(), 2, 0.5, True, "plus", None, 7), {}, "takes 6 inputs"),
        ((image(), 2, 0.5, True, "plus", None), {"k": 2}, "input `k` is given twice"),
        ((image(), 2, 0.5, True, "plus"), {"nothing": None}, "input `nothing` is no input of the graph"),
        ((image(),), {**OPTIONS, "extra": 1}, "input `extra` is no input of the graph"),
    ],
)
def test_the_number_of_inputs(args: Any, kwargs: Any, says: str) -> None:
    """A call has too few inputs, too many, one of them twice, or a name that no input has."""
    assert says in refusal(options_graph(0), *args, **kwargs)
