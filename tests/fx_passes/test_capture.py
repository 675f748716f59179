"""Routes from a model to a graph."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fx_passes.capture import capture, copy_graph_module
from fx_passes.errors import CaptureError


class Branch(nn.Module):
    """Looks at a value, which neither route can follow; at a size, which only export can."""

    def __init__(self, value: bool) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: Tensor) -> Tensor:
        if (x.sum() > 0) if self.value else (x.shape[0] > 1):
            return x + 1
        return x - 1


def test_symbolic_trace_comes_first_unless_export_is_preferred() -> None:
    """Both routes work on a simple module; the caller says which is tried first."""
    model, x = nn.Sequential(nn.Conv2d(3, 3, 3)), torch.randn(1, 3, 8, 8)
    assert capture(model, (x,)).route == "symbolic_trace"
    assert capture(model, (x,), prefer="torch.export").route == "torch.export"
    assert capture(model).route == "symbolic_trace"


def test_the_other_route_is_taken_and_the_reason_kept() -> None:
    """Control flow on a size stops symbolic tracing; the capture says so."""
    captured = capture(Branch(value=False), (torch.ones(2),))
    assert captured.route == "torch.export"
    assert captured.rejected is not None
    assert captured.rejected.startswith("symbolic_trace: TraceError:")


def test_no_route_is_one_line_with_every_reason() -> None:
    """When nothing works the error has the reason of each route, or asks for example inputs."""
    with pytest.raises(
        CaptureError, match=r"^Branch could not be captured: symbolic_trace: .*torch.export: "
    ):
        capture(Branch(value=True), (torch.ones(2),))
    with pytest.raises(CaptureError, match=r"give example inputs so that torch.export can be tried"):
        capture(Branch(value=True))


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
    copied = copy_graph_module(original)
    assert [n.name for n in copied.graph.nodes] == [n.name for n in original.graph.nodes]
    for name, tensor in original.state_dict(keep_vars=True).items():
        assert copied.state_dict(keep_vars=True)[name] is tensor
    copied.eval()
    assert original.get_submodule("1").training
    assert copied.get_submodule("1") is not original.get_submodule("1")


@pytest.mark.parametrize("prefer", ["symbolic_trace", "torch.export"])
def test_state_dict_keeps_its_keys(prefer: str) -> None:
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
    captured = capture(model, (torch.randn(1, 3, 8, 8),), prefer=prefer)
    assert captured.route == prefer
    assert captured.graph_module.state_dict().keys() == model.state_dict().keys()
    for name, tensor in captured.graph_module.state_dict(keep_vars=True).items():
        assert tensor is model.state_dict(keep_vars=True)[name]


@pytest.mark.parametrize("training", [True, False])
def test_training_mode_is_the_models(training: bool) -> None:
    """An exported graph, too, says in which mode it was exported."""
    model = nn.Sequential(nn.Conv2d(3, 3, 3)).train(training)
    captured = capture(model, (torch.randn(1, 3, 8, 8),), prefer="torch.export")
    assert all(m.training == training for m in captured.graph_module.modules())
