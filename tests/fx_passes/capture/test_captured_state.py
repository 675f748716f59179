"""The state of a captured model: its parameters, buffers, names and modes are those of the model."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fx_passes.capture.routes import capture
from fx_passes.graph.clone import clone_module


def test_buffers_are_read_at_run_time() -> None:
    """The graph module uses a buffer that is loaded later."""

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
    """The copy has its own graph and modules, and the same tensors and node names."""
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
    """Under either route, unused parameters stay and non-persistent buffers stay out."""

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
    """Every module has the mode of the module with its name, also a container."""
    model = nn.Sequential(nn.Sequential(nn.Conv2d(3, 3, 3)), nn.BatchNorm2d(3)).train()
    model[0].eval()
    modes = {name: module.training for name, module in model.named_modules()}
    for name, module in capture(model, inputs).graph_module.named_modules():
        assert module.training == modes[name]


def test_parameters_keep_the_order_of_the_model() -> None:
    """The state of an optimizer knows parameters by their order. torch's tracing has the order of use."""

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
