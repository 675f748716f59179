"""What the code of a model does while it is traced, and what a trace cannot hold."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from fx_passes.capture.routes import capture
from fx_passes.errors import CaptureError
from fx_passes.graph.clone import clone_module


def blur() -> nn.Module:
    return nn.Conv2d(4, 4, 3, groups=4)


class Counts(nn.Module):
    """Writes to itself when it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.runs = blur(), 0
        self.last: Tensor | None = None
        self.scale = torch.ones(())

    def forward(self, x: Tensor) -> Tensor:
        self.runs += 1
        self.last = x
        self.scale.mul_(0.5)
        return self.conv(x)


def test_tracing_leaves_the_model_as_it_was() -> None:
    """The model's code runs while a clone is traced. Attributes, plain tensors and buffers stay."""
    model = Counts()
    capture(model)
    assert (model.runs, model.last, model.scale.item()) == (0, None, 1.0)
    normed = nn.Sequential(blur(), nn.BatchNorm2d(4)).train()
    capture(normed, (torch.randn(2, 4, 8, 8),))
    assert normed[1].num_batches_tracked == 0
    lazy = nn.Sequential(nn.LazyConv2d(4, 3, groups=4))
    capture(lazy, (torch.randn(1, 4, 8, 8),))
    assert nn.parameter.is_lazy(lazy.get_parameter("0.weight"))


def no_grad(conv: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return conv(x)


def autocast(conv: nn.Module, x: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return conv(x)


def coin(conv: nn.Module, x: Tensor) -> Tensor:
    return conv(x) if random.random() < 2 else x


Apply = Callable[[nn.Module, Tensor], Tensor]


class Runs(nn.Module):
    """Calls ``function`` with a convolution and its input."""

    def __init__(self, function: Apply) -> None:
        super().__init__()
        self.conv, self.function = blur(), function

    def forward(self, x: Tensor, unused: Tensor | None = None) -> Tensor:
        return self.function(self.conv, x if unused is None else unused)


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (no_grad, "switches gradients or autocast"),
        (autocast, "switches gradients or autocast"),
        (coin, "draws random numbers"),
    ],
)
def test_what_a_traced_graph_cannot_hold_is_refused(function: Apply, reason: str) -> None:
    """Tracing would silently lose no_grad and autocast, and freeze Python's random."""
    with pytest.raises(CaptureError, match=reason):
        capture(Runs(function))


def test_hooks_of_the_root_are_not_lost() -> None:
    """Tracing starts below the model's own hooks. Export runs them."""
    model, x = nn.Sequential(blur()), torch.randn(1, 4, 8, 8)
    model.register_forward_hook(lambda module, arguments, output: output * 2)
    with pytest.raises(CaptureError, match="the model has forward hooks"):
        capture(model)
    assert torch.equal(capture(model, (x,)).graph_module(x), model(x))


def test_arguments_with_a_default_have_it() -> None:
    """The default decides ``if mask is None``, and not a tracer's proxy."""
    model, x = Runs(lambda conv, x: conv(x)), torch.randn(1, 4, 8, 8)
    assert torch.equal(capture(model).graph_module(x), model(x))


def test_dropout_is_recorded_not_frozen() -> None:
    """A random operator on a traced tensor is part of the graph."""
    model = Runs(lambda conv, x: torch.nn.functional.dropout(conv(x), 0.5))
    assert any("dropout" in str(node.target) for node in capture(model).graph_module.graph.nodes)


def test_what_cannot_be_deepcopied_can_be_captured() -> None:
    """A lock in a module is no obstacle."""
    model = nn.Sequential(blur())
    model[0].lock = threading.Lock()  # type: ignore[assignment]  # a module may hold anything
    assert len(clone_module(capture(model).graph_module).graph.nodes) == 3
