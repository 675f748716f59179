"""Which convolutions are listed, and under which name."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from one_convolution import Call, only, repeat_first_group
from torch import Tensor, nn

from fx_passes import find_shared_kernels


def test_one_channel_is_reported_as_one_kernel_already() -> None:
    """A convolution of one channel to one is shared. A note says that there is nothing to expand."""
    finding = only(nn.Sequential(nn.Conv2d(1, 1, 3)))
    assert finding.shared
    assert finding.reason == "one input channel: already one kernel"


def test_ordinary_dense_convolutions_are_not_listed() -> None:
    """A dense weight is no candidate in any form, also if it is computed."""
    assert find_shared_kernels(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())) == []
    computed = Call(lambda m, x: F.conv2d(x, m.k * x.mean()), torch.randn(4, 4, 3, 3))
    assert find_shared_kernels(computed, (torch.randn(1, 4, 8, 8),)) == []


@pytest.mark.parametrize("model", [nn.Identity(), nn.Sequential(), nn.Linear(2, 2)])
def test_models_without_convolutions(model: nn.Module) -> None:
    """It is no error if there is nothing to find."""
    assert find_shared_kernels(model) == []


def test_leaf_modules_are_looked_into() -> None:
    """A convolution inside a module that the graph calls as a whole is listed. The reason says so."""

    class Leaf(torch.fx.Tracer):
        def is_leaf_module(self, m: nn.Module, name: str) -> bool:
            return name == "0"

    model = nn.Sequential(nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 4, 3)))
    finding = only(torch.fx.GraphModule(model, Leaf().trace(model)))
    assert finding.id == "0.0"
    assert finding.reason == "inside `0` (Sequential), which the graph calls as a whole"


@pytest.mark.slow
def test_bodies_of_control_flow_are_looked_into() -> None:
    """A convolution in groups inside a branch of a cond is listed. The reason says so."""

    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = repeat_first_group(nn.Conv2d(4, 4, 3, groups=4, padding=1))

        def forward(self, x: Tensor) -> Tensor:
            return torch.cond(x.sum() > 0, lambda x: self.conv(x), lambda x: self.conv(x).neg(), (x,))

    findings = find_shared_kernels(Branches(), (torch.randn(1, 4, 8, 8),))
    assert [f.id for f in findings] == ["true_graph_0/conv2d", "false_graph_0/conv2d"]
    assert {f.refusal.code for f in findings if f.refusal} == {"subgraph"}


def test_ids_are_unique() -> None:
    """A module that is called twice gives two findings with two ids."""

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blur = repeat_first_group(nn.Conv2d(4, 4, 3, groups=4, padding=1))

        def forward(self, x: Tensor) -> Tensor:
            return self.blur(self.blur(x))

    assert [f.id for f in find_shared_kernels(Twice())] == ["blur", "blur#2"]
