"""Why a shared convolution is no site."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from integers import KERNEL
from torch import Tensor, nn
from torch.fx import GraphModule
from two_sites import OTHER, Model, depthwise, image, lowerings

from fx_passes.capture.routes import capture
from fx_passes.lower import lower
from fx_passes.resample.lowerable import lowerable_sites

pytestmark = pytest.mark.usefixtures("simple_rules")


def reason(graph_module: GraphModule) -> str:
    """Return the one reason why the one shared convolution cannot be lowered."""
    sites, reasons = lowerable_sites(graph_module)
    assert sites == []
    (why,) = (refusal.reason for refusal in reasons.values())
    return why


class Given(nn.Module):
    """A model that takes its kernel, or its bias, as an input."""

    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.bias = bias
        self.weight = nn.Buffer(KERNEL.repeat(4, 1, 1, 1))

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        if self.bias:
            return F.conv2d(x, self.weight, other, groups=4)
        return F.conv2d(x, other.expand(4, 1, 3, 3), groups=4)


def test_kernel_or_bias_at_run_time() -> None:
    """An input has no values yet. The reason names the input, and the convolution is still shared."""
    x = image()
    kernel = capture(Given(bias=False), (x, KERNEL)).graph_module
    assert reason(kernel) == (
        "the values of its kernel are not known: it depends on the input `other`, not only on its shape"
    )
    bias = capture(Given(bias=True), (x, torch.ones(4))).graph_module
    assert reason(bias) == "its bias is no constant: it depends on the input `other`, not only on its shape"
    lowered = lower(Given(bias=False), "static", (x, KERNEL))
    assert torch.equal(lowered(x, OTHER), Given(bias=False)(x, OTHER))


def test_no_shapes() -> None:
    """Without example inputs the sizes are not known, and nothing is lowered."""
    assert reason(capture(nn.Sequential(depthwise())).graph_module) == (
        "the shape of its input is not known; give example inputs"
    )
    lowered = lower(nn.Sequential(depthwise()))
    assert lowered.get_parameter("0.weight").shape == (1, 1, 3, 3)


def test_no_values() -> None:
    """A kernel on the meta device has no values."""

    class Meta(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kernel = nn.Parameter(torch.ones(1, 1, 3, 3, device="meta"))

        def forward(self, x: Tensor) -> Tensor:
            return F.conv2d(x, self.kernel.expand(4, -1, -1, -1), groups=4)

    graph_module = capture(Meta(), (torch.ones(1, 4, 8, 8, device="meta"),)).graph_module
    assert (
        reason(graph_module)
        == "the values of its kernel are not known: `kernel` is on the meta device and has no values"
    )


def test_complex_numbers() -> None:
    """The lowerings are written for real numbers."""
    model, x = Model(lambda m, x: m.two(x)), image().to(torch.complex64)
    model.second = model.second.to(torch.complex64)
    assert reason(capture(model, (x,)).graph_module) == (
        "input and kernel do not both have the type torch.complex64"
    )
    assert torch.equal(lower(model, "static", (x,))(x), model(x))


def test_a_kernel_that_cannot_be_computed() -> None:
    """The reason has the error of torch. ``lower`` itself does not fail."""

    def singular(m: Model, x: Tensor) -> Tensor:
        return F.conv2d(x, torch.linalg.inv(m.second[0, 0] * 0).expand(4, 1, 3, 3), groups=4)

    graph_module = capture(Model(singular), (image(),)).graph_module
    assert reason(graph_module).startswith(
        "the values of its kernel are not known: computing it failed: linalg.inv: "
    )
    assert lowerings(lower(Model(singular), "static", (image(),))) == []
