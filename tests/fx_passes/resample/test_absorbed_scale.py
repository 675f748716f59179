"""A site takes in the number that its output is multiplied by, if the kernel can hold the product."""

from __future__ import annotations

import pytest
import torch
from integers import KERNEL
from surroundings import Model, image, lower_all
from torch import Tensor

from fx_passes.capture.routes import capture

SMALL = torch.tensor([[1.0, 2, 1], [0, 0, 0], [-1, -2, -1]]) * 1e-3

# By name: the type, the size of the taps, that of the input, the number, and how often the output is
# multiplied by it.
TOO_LARGE = {
    "half": (torch.float16, 100.0, 1e-3, 1000.0, 1),
    "large taps": (torch.float32, 1e30, 1e-10, 1e11, 1),
    "several numbers": (torch.float32, 1.0, 1e-15, 2.0**39, 4),
}


@pytest.mark.parametrize("way", TOO_LARGE)
def test_numbers_that_the_kernel_cannot_take_together(way: str) -> None:
    """The kernel times the number is not finite in its type, but the output is."""
    dtype, taps, size, number, times = TOO_LARGE[way]

    def function(m: Model, x: Tensor) -> Tensor:
        y = m.conv(x)
        for _ in range(times):
            y = y * number
        return y

    model, x = Model(function, KERNEL * taps).to(dtype), (image() * size).to(dtype)
    expected = model(x)
    assert expected.isfinite().all()
    graph_module = capture(model, (x,)).graph_module
    lower_all(graph_module)
    torch.testing.assert_close(graph_module(x), expected, rtol=1e-2, atol=float(expected.abs().max()) * 1e-2)


@pytest.mark.parametrize("number", [1e-42, torch.inf])
def test_a_number_that_the_kernel_cannot_take(number: float) -> None:
    """The number is too small, or too large, to be multiplied into the taps."""
    model = Model(lambda m, x: m.conv(x) * number, SMALL)
    x = 1e3 * torch.arange(1.0, 9)[:, None] ** 3 + torch.rand(2, 4, 8, 10)
    graph_module = capture(model, (x,)).graph_module
    lower_all(graph_module)
    torch.testing.assert_close(graph_module(x), model(x), rtol=1e-3, atol=0)
