"""Routes from a model to a graph."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fx_passes.capture.routes import capture
from fx_passes.errors import CaptureError
from fx_passes.graph.clone import clone_module


class Branch(nn.Module):
    """Looks at a value, which neither route can follow."""

    def forward(self, x: Tensor) -> Tensor:
        return x + 1 if x.sum() > 0 else x


class Star(nn.Module):
    """Symbolic tracing follows it; export does not, for it reads a number."""

    def forward(self, x: Tensor) -> Any:
        return x * float(x.sum()) if False else x * x.sum().numpy()


def test_export_comes_first_where_there_are_inputs() -> None:
    """Export guards what it assumes; symbolic tracing is for models without example inputs."""
    model, x = nn.Sequential(nn.Conv2d(3, 3, 3)), torch.randn(1, 3, 8, 8)
    assert capture(model, (x,)).route == "torch.export"
    assert capture(model).route == "symbolic_trace"


def test_the_other_route_is_taken_and_the_reason_kept() -> None:
    """What export refuses may still be traced; the capture says why export was not used."""
    captured = capture(Star(), (torch.ones(2),))
    assert captured.route == "symbolic_trace"
    assert captured.rejected is not None
    assert captured.rejected.startswith("torch.export: ")


def test_no_route_is_one_line_with_every_reason() -> None:
    """When nothing works the error has the reason of each route, or asks for example inputs."""
    with pytest.raises(
        CaptureError, match=r"^Branch could not be captured: torch.export: .*symbolic_trace: "
    ):
        capture(Branch(), (torch.ones(2),))
    with pytest.raises(CaptureError, match=r"give example inputs so that torch.export can be tried"):
        capture(Branch())


def test_something_else_is_refused() -> None:
    """Neither a module nor a program."""
    with pytest.raises(CaptureError, match=r"expected an nn.Module, GraphModule or ExportedProgram, got int"):
        capture(3)  # type: ignore[arg-type]


def test_random_numbers_are_not_frozen() -> None:
    """Symbolic tracing would draw them once; export keeps the operator."""

    class Noise(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.randn(3)

    captured = capture(Noise(), (torch.ones(3),))
    assert captured.route == "torch.export"
    assert not torch.equal(captured.graph_module(torch.ones(3)), captured.graph_module(torch.ones(3)))


def test_buffers_are_read_at_run_time() -> None:
    """A buffer that is loaded later is the one that is used."""

    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Buffer(torch.ones(1))

        def forward(self, x: Tensor) -> Tensor:
            return x * (self.scale * 2)

    graph_module = capture(Scale()).graph_module
    graph_module.load_state_dict({"scale": torch.tensor([5.0])})
    assert graph_module(torch.ones(1)).item() == 10


def test_copies_share_tensors_and_nothing_else() -> None:
    """The copy has its own graph and modules, the same tensors and the same node names."""
    model = nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3))
    original = torch.fx.symbolic_trace(model)
    copied = clone_module(original)
    assert [n.name for n in copied.graph.nodes] == [n.name for n in original.graph.nodes]
    for name, tensor in original.state_dict(keep_vars=True).items():
        assert copied.state_dict(keep_vars=True)[name] is tensor
    copied.eval()
    assert original.get_submodule("1").training
    assert copied.get_submodule("1") is not original.get_submodule("1")


@pytest.mark.parametrize("route", ["symbolic_trace", "torch.export"])
def test_state_dict_keeps_its_keys(route: str) -> None:
    """Unused parameters stay, non-persistent buffers stay out, under either route."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3)
            self.unused = nn.ModuleDict({"a": nn.Linear(2, 2)})
            self.kept = nn.Buffer(torch.ones(1))
            self.dropped = nn.Buffer(torch.ones(1), persistent=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x) * self.dropped

    model = Net()
    captured = capture(model, (torch.randn(1, 3, 8, 8),) if route == "torch.export" else None)
    assert captured.route == route
    assert captured.graph_module.state_dict().keys() == model.state_dict().keys()
    for name, tensor in captured.graph_module.state_dict(keep_vars=True).items():
        assert tensor is model.state_dict(keep_vars=True)[name]


@pytest.mark.parametrize("inputs", [None, (torch.randn(1, 3, 8, 8),)], ids=["symbolic_trace", "torch.export"])
def test_training_modes_are_the_models(inputs: tuple[Tensor] | None) -> None:
    """Every module of the graph module is in the mode of its namesake, containers included."""
    model = nn.Sequential(nn.Sequential(nn.Conv2d(3, 3, 3)), nn.BatchNorm2d(3)).train()
    model[0].eval()
    modes = {name: module.training for name, module in model.named_modules()}
    for name, module in capture(model, inputs).graph_module.named_modules():
        assert module.training == modes[name]


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
    """The model's code runs while it is traced, on a clone: attributes, plain tensors and buffers stay."""
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
    """no_grad, autocast and Python's random would silently be lost or frozen."""
    with pytest.raises(CaptureError, match=reason):
        capture(Runs(function))


def test_hooks_of_the_root_are_not_lost() -> None:
    """Tracing starts below the model's own hooks; export runs them."""
    model, x = nn.Sequential(blur()), torch.randn(1, 4, 8, 8)
    model.register_forward_hook(lambda module, arguments, output: output * 2)
    with pytest.raises(CaptureError, match="the model has forward hooks"):
        capture(model)
    assert torch.equal(capture(model, (x,)).graph_module(x), model(x))


def test_arguments_with_a_default_have_it() -> None:
    """``if mask is None`` is decided by the default, not by a tracer's proxy."""
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


def test_parameters_keep_the_order_of_the_model() -> None:
    """The state of an optimizer knows them by it; torch's tracing has the order of use."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.decoder = nn.Conv2d(3, 3, 1)
            self.encoder = nn.Conv2d(3, 3, 1)
            self.blocks = nn.ModuleDict({"b": nn.BatchNorm2d(3), "a": nn.Conv2d(3, 3, 1)})
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, x: Tensor) -> Tensor:
            return self.decoder(self.encoder(self.blocks["b"](self.blocks["a"](x)))) * self.scale

    model = Net()
    graph_module = capture(model).graph_module
    assert [n for n, _ in graph_module.named_parameters()] == [n for n, _ in model.named_parameters()]
    assert list(graph_module.state_dict()) == list(model.state_dict())
