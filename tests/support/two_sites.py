"""A model with two shared convolutions, and what ``lower`` made of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from integers import KERNEL, integers
from torch import Tensor, nn
from torch.fx import GraphModule

from fx_passes.lowerings.forms.base import Lowered

OTHER = torch.tensor([[0.0, 1, 0], [2, -3, 1], [1, 1, 2]])


def image(*shape: int) -> Tensor:
    """Return small integers. The default shape is so large that the rules do not leave the site alone."""
    return integers(shape or (2, 4, 26, 40))


class Model(nn.Module):
    """A model that is one function of its input. It has two kernels, each repeated for four channels."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function
        self.first = nn.Parameter(KERNEL.repeat(4, 1, 1, 1))
        self.second: Tensor = nn.Buffer(OTHER.repeat(4, 1, 1, 1))
        self.bias: Tensor = nn.Parameter(torch.arange(4.0))
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Any:
        return self.function(self, x)

    def one(self, x: Tensor, **other: Any) -> Tensor:
        return F.conv2d(x, self.first, groups=4, **other)

    def two(self, x: Tensor, **other: Any) -> Tensor:
        return F.conv2d(x, self.second, groups=4, **other)


def both(m: Model, x: Tensor) -> Tensor:
    """Run both convolutions, one after the other."""
    return m.two(m.one(x, padding=1, bias=m.bias).relu())


def depthwise() -> nn.Conv2d:
    """Return a convolution of four channels that repeats the kernel."""
    conv = nn.Conv2d(4, 4, 3, groups=4, bias=False)
    conv.weight.data = KERNEL.repeat(4, 1, 1, 1)
    return conv


def lowerings(graph_module: GraphModule) -> list[str]:
    """Return the name of each lowering that a graph calls, in the order of the calls."""
    targets = [str(node.target) for node in graph_module.graph.nodes if node.op == "call_module"]
    modules = [graph_module.get_submodule(target) for target in targets]
    return [type(m).__module__.rpartition(".")[2] for m in modules if isinstance(m, Lowered)]
