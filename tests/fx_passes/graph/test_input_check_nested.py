"""A lowered graph refuses nested inputs of another structure, and names the leaf that does not fit."""

from __future__ import annotations

import re
from collections import OrderedDict
from typing import Any

import pytest
import torch
from blurred import Blurred, image, refusal
from torch import Tensor
from torch.fx import GraphModule

from fx_passes.lower import lower


class Nested(Blurred):
    """It takes a dict that holds a list, and keywords."""

    def forward(self, x: Tensor, more: dict[str, Any], *, last: Tensor, k: int = 2) -> Tensor:
        a, b = more["pair"]
        return self.blur(x) + a - b * more["scale"] + last * k


def nested(**changes: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    more = {"pair": [image(), image()], "scale": 3.0}
    return (image(), {**more, **changes}), {"last": image(), "k": 2}


@pytest.fixture(scope="module")
def nested_graph() -> GraphModule:
    args, kwargs = nested()
    return lower(torch.export.export(Nested(), args, kwargs))


def test_nested_inputs_that_fit(nested_graph: GraphModule) -> None:
    """The keywords come in any order."""
    args, kwargs = nested()
    expected = Nested()(*args, **kwargs)
    torch.testing.assert_close(nested_graph(*args, **kwargs), expected, rtol=1e-4, atol=1e-4)
    turned = dict(reversed(kwargs.items()))
    torch.testing.assert_close(nested_graph(*args, **turned), expected, rtol=1e-4, atol=1e-4)
    named = {"more": args[1], **kwargs, "x": args[0]}
    torch.testing.assert_close(nested_graph(**named), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"pair": [image()]}, "input `more`: expected the structure"),
        ({"pair": (image(), image())}, "input `more`: expected the structure"),
        ({"pair": [image(), image(), image()]}, "input `more`: expected the structure"),
        ({"another": 1}, "input `more`: expected the structure"),
        ({"pair": [image(), image(1, 3, 32, 40)]}, r"input `more\['pair'\]\[1\]`: .* got \(1, 3, 32, 40\)"),
        ({"pair": [image().double(), image()]}, r"input `more\['pair'\]\[0\]`: .*float64"),
        ({"scale": 4.0}, r"input `more\['scale'\]`: .*captured for 3.0, got 4.0"),
        ({"scale": image()}, r"input `more\['scale'\]`: .*captured for 3.0, got a tensor"),
    ],
)
def test_nested_inputs_that_do_not_fit(nested_graph: GraphModule, changes: dict[str, Any], says: str) -> None:
    """The message names the input that has another structure.

    If only a leaf does not fit, the message has the path of the leaf.
    """
    args, kwargs = nested(**changes)
    assert re.search(says, refusal(nested_graph, *args, **kwargs))


def test_a_dict_of_another_class_or_order(nested_graph: GraphModule) -> None:
    """A dict of another class is refused.

    A dict in another order is refused or read by its keys. It is never read by the order of its values.
    """
    args, kwargs = nested()
    other = OrderedDict(args[1])
    assert "structure" in refusal(nested_graph, args[0], other, **kwargs)
    turned = dict(reversed(args[1].items()))
    try:
        y = nested_graph(args[0], turned, **kwargs)
    except ValueError:
        return
    torch.testing.assert_close(y, Nested()(*args, **kwargs), rtol=1e-4, atol=1e-4)


def test_keywords_that_do_not_fit(nested_graph: GraphModule) -> None:
    """A keyword has another value or another shape, or it is missing."""
    args, kwargs = nested()
    assert "input `k`: " in refusal(nested_graph, *args, **{**kwargs, "k": 3})
    assert "input `last`: " in refusal(nested_graph, *args, **{**kwargs, "last": image(1, 3, 32, 40)})
    assert "input `k` is missing" in refusal(nested_graph, *args, last=kwargs["last"])
