"""The private modes of torch. Some see each operator, and others switch those off."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.fx.passes.fake_tensor_prop import FakeTensorProp
from torch.overrides import TorchFunctionMode

from fx_passes.graph import torch_internals as internals


def test_fake_tensor_mode() -> None:
    """Shapes pass through a graph that holds real tensors. The numbers of the tensors stay."""
    graph_module = torch.fx.symbolic_trace(nn.Sequential(nn.Linear(3, 5)))
    before = graph_module.get_parameter("0.weight").clone()
    fake = internals.FakeTensorMode(allow_non_fake_inputs=True)
    FakeTensorProp(graph_module, fake).propagate(torch.rand(2, 3))
    shapes = [tuple(node.meta["val"].shape) for node in graph_module.graph.nodes]
    assert shapes == [(2, 3), (2, 5), (2, 5)]
    assert torch.equal(graph_module.get_parameter("0.weight"), before)


def test_torch_dispatch_mode() -> None:
    """The mode sees the operators of a layer. Each is an overload. The mode may change results."""
    seen: list[str] = []

    class Mode(internals.TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            assert isinstance(func, internals.OpOverload)
            seen.append(func.name())
            return func(*args, **(kwargs or {})) + 1

    x, weight = torch.rand(1, 2, 5), torch.rand(2, 1, 3)
    with Mode():
        found = F.conv1d(x, weight, groups=2)
    assert seen == ["aten::convolution"]
    assert torch.equal(found, F.conv1d(x, weight, groups=2) + 1)


def test_disable_torch_dispatch() -> None:
    """A dispatch mode that is on sees nothing within it."""
    seen: list[str] = []

    class Mode(internals.TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append(func.name())
            return func(*args, **(kwargs or {}))

    x = torch.ones(1)
    with Mode(), internals.DisableTorchDispatch():
        x + 1
    assert seen == []
    with Mode():
        x + 1
    assert seen == ["aten::add.Tensor"]


def test_disable_torch_function() -> None:
    """A function mode that is on sees nothing within it."""
    seen: list[str] = []

    class Mode(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append(func.__name__)
            return func(*args, **(kwargs or {}))

    x = torch.ones(1)
    with Mode(), internals.DisableTorchFunction():
        x.sin()
    assert seen == []
    with Mode():
        x.sin()
    assert seen == ["sin"]
