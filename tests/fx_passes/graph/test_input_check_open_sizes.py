"""A lowered graph with open sizes takes sizes in their range and refuses others."""

from __future__ import annotations

import functools
import re

import pytest
import torch
from blurred import Blurred, image, refusal
from torch import Tensor
from torch.export import Dim
from torch.fx import GraphModule

from fx_passes.lower import lower


class Two(Blurred):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.blur(x) + y


@functools.cache
def open_graph() -> GraphModule:
    batch, height = Dim("batch", min=3, max=8), Dim("height", max=64)
    sizes = {"x": {0: batch, 2: height}, "y": {0: batch, 2: height}}
    return lower(torch.export.export(Two(), (image(4, 3, 32, 40), image(4, 3, 32, 40)), dynamic_shapes=sizes))


def test_open_sizes_within_their_range() -> None:
    """Open sizes may be any sizes in their range.

    Sizes that torch.export found the same have to be the same.
    """
    for batch, height in ((3, 32), (8, 64), (5, 9)):
        x, y = image(batch, 3, height, 40), image(batch, 3, height, 40)
        torch.testing.assert_close(open_graph()(x, y), Two()(x, y), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("x", "y", "says"),
    [
        ((2, 3, 32, 40), (2, 3, 32, 40), "dimension 0 of input `x` is 2; .* 3 to 8"),
        ((9, 3, 32, 40), (9, 3, 32, 40), "dimension 0 of input `x` is 9; .* 3 to 8"),
        ((4, 3, 65, 40), (4, 3, 65, 40), "dimension 2 of input `x` is 65; .* 0 to 64"),
        (
            (4, 3, 32, 40),
            (5, 3, 32, 40),
            "dimension 0 of input `y` is 5, .* of input `x`, which is 4",
        ),
        ((4, 3, 32, 40), (4, 3, 33, 40), "dimension 2 of input `y` is 33"),
        ((4, 3, 32, 41), (4, 3, 32, 40), r"input `x`: .*shape \(any, 3, any, 40\)"),
        ((4, 4, 32, 40), (4, 3, 32, 40), r"input `x`: .*\(any, 3, any, 40\)"),
        ((4, 3, 32), (4, 3, 32, 40), "input `x`: "),
    ],
)
def test_open_sizes_out_of_their_range(x: tuple[int, ...], y: tuple[int, ...], says: str) -> None:
    """A size is too small or too large, or two sizes differ that have to be the same.

    Sizes that are not open stay exact.
    """
    assert re.search(says, refusal(open_graph(), image(*x), image(*y)))
    assert re.search(says, refusal(open_graph(), y=image(*y), x=image(*x)))


def test_sizes_that_are_computed_are_checked_by_torch() -> None:
    """One size is another size plus 1. torch's own check sees that."""

    class Longer(Blurred):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return self.blur(x) + y[:, :, 1:]

    height = Dim("height", min=8, max=99)
    sizes = {"x": {2: height}, "y": {2: height + 1}}
    program = torch.export.export(Longer(), (image(), image(2, 3, 33, 40)), dynamic_shapes=sizes)
    graph = lower(program)
    assert graph(image(), image(2, 3, 33, 40)).shape == image().shape
    with pytest.raises(RuntimeError):
        graph(image(), image(2, 3, 34, 40))
    assert "float64" in refusal(graph, image().double(), image(2, 3, 33, 40))


def test_what_was_assumed_of_two_sizes_is_checked() -> None:
    """The model branches on two open sizes, but the graph has one way only.

    It refuses inputs that would go the other way.
    """

    class Branch(Blurred):
        def forward(self, x: Tensor) -> Tensor:
            return self.blur(x) if x.shape[2] > x.shape[3] else -self.blur(x)

    sizes = {"x": {2: Dim.AUTO, 3: Dim.AUTO}}
    program = torch.export.export(Branch(), (image(2, 3, 40, 32),), dynamic_shapes=sizes)
    graph = lower(program)
    for shape in ((2, 3, 40, 32), (2, 3, 64, 20)):
        x = image(*shape)
        torch.testing.assert_close(graph(x), Branch()(x), rtol=1e-4, atol=1e-3)
    with pytest.raises(AssertionError, match="Guard failed"):
        graph(image(2, 3, 32, 40))
