"""A convolution with something around it, and what is still around it when it is lowered."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from integers import KERNEL, integers
from torch import Tensor, nn
from torch.fx import GraphModule

from fx_passes.graph.operators import base_name
from fx_passes.lower import lower_in_place
from fx_passes.lowerings import propose
from fx_passes.plan import Choice, Plan
from fx_passes.resample.axes import Axis
from fx_passes.resample.lowerable import lowerable_sites
from fx_passes.resample.site import Site

Function = Callable[[Any, Tensor], Any]


class Model(nn.Module):
    """A model that is one function of its input. It has a kernel for four channels, a buffer and a ReLU."""

    def __init__(self, function: Function, kernel: Tensor = KERNEL) -> None:
        super().__init__()
        self.function = function
        self.weight = nn.Buffer(kernel.repeat(4, 1, *[1] * kernel.ndim))
        self.state = nn.Buffer(torch.ones(2, 4, 8, 10))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Any:
        return self.function(self, x)

    def conv(self, x: Tensor, groups: int = 4, **other: Any) -> Tensor:
        """One kernel on each of four channels, or of one."""
        conv = (F.conv1d, F.conv2d)[self.weight.ndim - 3]
        weight = self.weight if groups == 4 else self.weight[:groups]
        return conv(x, weight, groups=groups, **other)

    def up(self, x: Tensor, **other: Any) -> Tensor:
        return F.conv_transpose1d(x, self.weight, groups=4, **other)


def image(*shape: int) -> Tensor:
    """Return small integers, by default of a small shape."""
    return integers(shape or (2, 4, 8, 10))


def lower_all(graph_module: GraphModule) -> list[Site]:
    """Lower every site in place, in phases where that is possible. This is exact for integers."""
    sites, reasons = lowerable_sites(graph_module)
    assert not reasons
    plan = Plan({site.id: Choice(site.key, _phases(site)) for site in sites})
    assert lower_in_place(graph_module, sites, plan) == len(sites)
    return sites


def _phases(site: Site) -> Any:
    proposals, _ = propose(site.resample, site.kernel)
    return next(
        (p for p in proposals if "polyphase" in p.lowering and "separable" not in p.lowering), proposals[0]
    )


def left(graph_module: GraphModule) -> list[str]:
    """Return the operators that a graph still has."""
    names = [base_name(node) for node in graph_module.graph.nodes if node.op == "call_function"]
    return [name for name in names if name != "_assert_tensor_metadata"]


def require_equal(model: nn.Module, graph_module: GraphModule, x: Tensor) -> None:
    """Require that the graph computes the same numbers as the model, to the last bit."""
    expected, found = copy.deepcopy(model)(x.clone()), graph_module(x.clone())
    pairs = zip(expected, found, strict=True) if isinstance(expected, tuple) else [(expected, found)]
    for wanted, given in pairs:
        assert given.shape == wanted.shape
        torch.testing.assert_close(given, wanted, rtol=0, atol=0, equal_nan=True)


def stuffed(x: Tensor, up: int) -> Tensor:
    """Put zeros between the columns, and behind the last one."""
    return F.pad(x.unsqueeze(-1), (0, up - 1)).flatten(-2)


def axes(height: dict[str, Any], width: dict[str, Any]) -> tuple[Axis, Axis]:
    """Return the axes of a kernel of 3 x 3."""
    return Axis(3, **height), Axis(3, **width)


# Without padding, a kernel of three taps gives two outputs fewer than it has inputs.
PLAIN = {"extent": -3}
