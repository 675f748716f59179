"""Which route leads from a model to a graph, and what is said where none does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fx_passes.capture.routes import capture
from fx_passes.errors import CaptureError


class Branch(nn.Module):
    """Looks at a value. Neither route can follow that."""

    def forward(self, x: Tensor) -> Tensor:
        return x + 1 if x.sum() > 0 else x


class Star(nn.Module):
    """Reads a number. Symbolic tracing can follow that, and export cannot."""

    def forward(self, x: Tensor) -> Any:
        return x * float(x.sum()) if False else x * x.sum().numpy()


def test_export_comes_first_where_there_are_inputs() -> None:
    """Export guards what it assumes. Symbolic tracing is for models without example inputs."""
    model, x = nn.Sequential(nn.Conv2d(3, 3, 3)), torch.randn(1, 3, 8, 8)
    assert capture(model, (x,)).route == "torch.export"
    assert capture(model).route == "symbolic_trace"


def test_the_other_route_is_taken_and_the_reason_kept() -> None:
    """What export refuses may still be traced. The capture says why export was not used."""
    captured = capture(Star(), (torch.ones(2),))
    assert captured.route == "symbolic_trace"
    assert captured.rejected is not None
    assert captured.rejected.startswith("torch.export: ")


def test_no_route_is_one_line_with_every_reason() -> None:
    """If nothing works, the error has the reason of each route. Or it asks for example inputs."""
    with pytest.raises(
        CaptureError, match=r"^Branch could not be captured: torch.export: .*symbolic_trace: "
    ):
        capture(Branch(), (torch.ones(2),))
    with pytest.raises(CaptureError, match=r"torch\.export needs example inputs: give --input"):
        capture(Branch())


def test_something_else_is_refused() -> None:
    """A number is neither a module nor a program."""
    with pytest.raises(CaptureError, match=r"expected an nn.Module, GraphModule or ExportedProgram, got int"):
        capture(3)  # type: ignore[arg-type]


def test_random_numbers_are_not_frozen() -> None:
    """Symbolic tracing would draw them once. Export keeps the operator."""

    class Noise(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.randn(3)

    captured = capture(Noise(), (torch.ones(3),))
    assert captured.route == "torch.export"
    assert not torch.equal(captured.graph_module(torch.ones(3)), captured.graph_module(torch.ones(3)))
