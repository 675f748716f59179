"""``lower()`` of programs with open sizes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim
from two_sites import Model, both, image, lowerings

from fx_passes.capture.routes import capture
from fx_passes.lower import lower
from fx_passes.resample.lowerable import lowerable_sites

pytestmark = pytest.mark.usefixtures("simple_rules")


def test_open_sizes_of_a_graph_module() -> None:
    """The graph module knows which sizes are open. Example inputs do not close them."""
    model, x = Model(both), image()
    program = torch.export.export(model, (x,), dynamic_shapes={"x": {0: Dim("batch", max=64)}})
    lowered = lower(program.module(), "static", (x,))
    assert lowerings(lowered) == ["polyphase"] * 2
    x = image(3, 4, 26, 40)
    assert torch.equal(lowered(x), model(x))


@pytest.mark.parametrize("sizes", [{0}, {2}, {3}, {0, 2, 3}], ids=str)
@pytest.mark.parametrize(
    "function", [both, lambda m, x: m.two(F.pad(x, (1, 1, 2, 0), mode="reflect"), stride=2)]
)
def test_open_sizes(function: Callable[..., Tensor], sizes: set[int]) -> None:
    """A program with open sizes is lowered. It is also right at sizes that it was not exported with."""
    model, x = Model(function), image()
    dims = {size: Dim(f"size_{size}", min=1 if size == 0 else 8, max=512) for size in sizes}
    program = torch.export.export(model, (x,), dynamic_shapes={"x": dims})
    lowered = lower(program)
    assert lowerings(lowered)
    for batch, height, width in ((2, 26, 40), (1, 9, 8), (5, 33, 47), (3, 64, 100)):
        asked = (batch if 0 in sizes else 2, 4, height if 2 in sizes else 26, width if 3 in sizes else 40)
        x = image(*asked)
        assert torch.equal(lowered(x), model(x))


def test_open_sizes_of_a_transposed_line() -> None:
    """The output of ``conv_transpose1d`` does not end with a whole block. It is right at every length."""

    class Up(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Buffer(torch.tensor([1.0, -2, 3, 1]).repeat(4, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            return F.conv_transpose1d(x, self.weight, stride=2, padding=1, groups=4)

    model = Up()
    dims = {0: Dim("batch"), 2: Dim("length", min=2, max=512)}
    lowered = lower(torch.export.export(model, (image(2, 4, 30),), dynamic_shapes={"x": dims}))
    assert lowerings(lowered) == ["transposed_polyphase"]
    for shape in ((2, 4, 30), (1, 4, 2), (3, 4, 77)):
        x = image(*shape)
        assert torch.equal(lowered(x), model(x))


@pytest.mark.parametrize(("kernel", "stride", "first", "step"), [(8, 3, 0, 8), (10, 3, 2, 8), (4, 1, 5, 9)])
def test_lengths_that_are_rounded_down(kernel: int, stride: int, first: int, step: int) -> None:
    """Every residue of the length of the result is right, also where a step skips more outputs than there are
    lengths that are always tried."""

    class Skip(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Buffer(torch.arange(1.0, kernel + 1).repeat(4, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            up = F.conv_transpose1d(x, self.weight, stride=stride, groups=4)
            return up[..., first::step]

    model, dims = Skip(), {2: Dim("length", min=13, max=512)}
    program = torch.export.export(model, (image(1, 4, 40),), dynamic_shapes={"x": dims})
    (site,), _ = lowerable_sites(capture(program).graph_module)
    (axis,) = site.resample.axes
    assert axis.down == step, "the slice is absorbed"
    assert site.shapes == ((1, 4, 40),), "the shape of the example"
    lowered = lower(program)
    for length in range(13, 13 + 2 * step):
        x = image(1, 4, length)
        expected = model(x)
        assert axis.size(length) == expected.shape[-1]
        assert torch.equal(lowered(x), expected)
