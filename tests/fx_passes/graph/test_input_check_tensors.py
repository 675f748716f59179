"""A lowered graph refuses tensors other than those it was captured with."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from blurred import OPTIONS, OneImage, Options, image, refusal
from torch import nn

from fx_passes.lower import lower


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (image(2, 3, 33, 40), r"input `x`: .*shape \(2, 3, 32, 40\), got \(2, 3, 33, 40\)"),
        (image(1, 3, 32, 40), r"got \(1, 3, 32, 40\)"),
        (image(3, 32, 40), r"got \(3, 32, 40\)"),
        (image(2, 3, 32, 40, 1), r"got \(2, 3, 32, 40, 1\)"),
        (image().double(), "input `x`: .*float32, got torch.float64"),
        (image().half(), "float32, got torch.float16"),
        (image().to(torch.int32), "float32, got torch.int32"),
        (image().to("meta"), "input `x`: .*on cpu, got meta"),
        (image().tolist(), r"input `x`: expected a tensor, got \[+.* \(list\)"),
        (None, "expected a tensor, got None"),
        (1.5, "expected a tensor, got 1.5"),
    ],
)
def test_another_tensor_is_refused(wrong: Any, says: str) -> None:
    """A tensor has another shape or type, or is on another device. Or it is no tensor.

    It is refused by position and by name.
    """
    graph = lower(OneImage(), "static", (image(),))
    assert re.search(says, refusal(graph, wrong))
    assert re.search(says, refusal(graph, x=wrong))


def test_a_graph_that_was_converted_takes_what_it_became() -> None:
    """The graph is now in float64. It takes inputs of float64 and refuses others."""
    graph, x = lower(OneImage(), "static", (image(),)).double(), image().double()
    torch.testing.assert_close(graph(x), OneImage().double()(x))
    assert "float16" in refusal(graph, x.half())


CASES: list[tuple[nn.Module, tuple[Any, ...], tuple[Any, ...]]] = [
    (OneImage(), (image(),), (image(1, 3, 32, 40),)),
    (OneImage(), (image(),), (image(), image())),
    (Options(), (image(), *OPTIONS.values()), (image(), *{**OPTIONS, "k": 3}.values())),
    (Options(), (image(), *OPTIONS.values()), (image(), *{**OPTIONS, "mode": "minus"}.values())),
]


@pytest.mark.parametrize(("model", "right", "wrong"), CASES)
def test_what_torch_refuses_is_refused(model: nn.Module, right: Any, wrong: Any) -> None:
    """Our check replaces torch's check. It is at least as strong."""
    theirs = torch.export.export(model, right).module()
    with pytest.raises((ValueError, RuntimeError, AssertionError)):
        theirs(*wrong)
    refusal(lower(model, "static", right), *wrong)
