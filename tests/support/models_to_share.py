"""Models that repeat their kernels, and the routes by which a test gives them to the pass."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.fx.passes.infra.pass_base import PassBase, PassResult


def seed_model() -> tuple[nn.Conv2d, nn.Conv2d, Tensor]:
    """The project's seed: three channels convolved with one kernel."""
    torch.manual_seed(0)
    x = torch.rand(1, 3, 3, 3)
    kernel = nn.Conv2d(1, 1, 3)
    conv = nn.Conv2d(3, 3, 3, groups=3)
    conv.weight.data = kernel.weight.data.repeat(3, 1, 1, 1)
    conv.get_parameter("bias").data = kernel.get_parameter("bias").data.repeat(3)
    return conv, kernel, x


class Net(nn.Module):
    """Has shared and other layers, a buffer, an unused parameter, a layer called twice, and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.blur = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False, padding_mode="reflect")
        self.blur.weight.data = torch.randn(1, 1, 3, 3).repeat(8, 1, 1, 1)
        self.blur.weight.requires_grad_(False)
        self.mixed = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.mixed.weight.data = torch.randn(1, 1, 3, 3).repeat(8, 1, 1, 1)
        self.up = nn.ConvTranspose2d(8, 16, 4, stride=2, groups=4)
        self.up.weight.data = torch.randn(2, 4, 4, 4).repeat(4, 1, 1, 1)
        self.up.get_parameter("bias").data = torch.randn(4).repeat(4)
        self.depthwise = nn.Conv2d(16, 16, 3, groups=16)
        self.dropout = nn.Dropout()
        self.unused = nn.Parameter(torch.zeros(2))
        self.window = nn.Buffer(torch.randn(1, 1, 3, 3).repeat(16, 1, 1, 1))
        self.hidden = nn.Buffer(torch.zeros(1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mixed(self.blur(self.blur(self.stem(x))))
        x = self.dropout(self.depthwise(self.up(x)))
        return F.conv2d(x, self.window, groups=16)


ROUTES = {
    "nn.Module": lambda model, x: model,
    "graph module": lambda model, x: torch.fx.symbolic_trace(model),
    "exported program": lambda model, x: torch.export.export(model, (x,)).module(),
}


def passed(the_pass: PassBase, graph_module: GraphModule) -> PassResult:
    """What a pass returns. The stub of torch allows it to return nothing."""
    result = the_pass(graph_module)
    assert result is not None
    return result
