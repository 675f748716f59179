"""``torch.compile(model, backend="fx_passes")``: right for every shape and for all inputs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from compiled_blur import Blur, image, require_same
from torch import Tensor, nn

from fx_passes import compile_backend

pytestmark = pytest.mark.usefixtures("simple_rules", "fresh_compiler")


@pytest.mark.slow
def test_it_is_registered(caplog: pytest.LogCaptureFixture) -> None:
    """``torch.compile`` takes it by its name."""
    model = Blur().eval()
    assert "fx_passes" in torch.compiler.list_backends()
    require_same(torch.compile(model, backend="fx_passes"), model, image())
    assert caplog.messages == ["2 convolutions lowered"]


@pytest.mark.slow
def test_few_graphs_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph is lowered for each number that the model takes. The one that was not used for longest goes."""

    class Times(Blur):
        def forward(self, x: Tensor, factor: int = 1) -> Tensor:
            return super().forward(x) * factor

    model = Times().eval()
    monkeypatch.setattr(compile_backend, "_KEPT", 2)
    kept: list[Any] = []
    original = compile_backend._Inference.__init__

    def remember(self: Any, *arguments: Any) -> None:
        original(self, *arguments)
        kept.append(self.kept)

    monkeypatch.setattr(compile_backend._Inference, "__init__", remember)
    compiled = torch.compile(model, backend="fx_passes", dynamic=True)
    with torch.no_grad():
        for factor in (40, 41, 42, 41, 43):
            found, expected = (function(image(), factor) for function in (compiled, model))
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-2)
    (graphs,) = kept
    assert [next(part for part in key if isinstance(part, int)) for key in graphs] == [41, 43]


def test_inputs_that_overlap() -> None:
    """The graph writes into one input. In some calls, the other one is the same memory."""

    class Writes(nn.Module):
        kernel: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("kernel", torch.rand(1, 1, 9, 9))

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            y.add_(1)
            return F.conv2d(x, self.kernel.expand(3, 1, -1, -1), padding=4, groups=3) + y

    net = Writes().eval()
    compiled = torch.compile(net, backend="fx_passes")
    with torch.no_grad():
        for arguments in (
            lambda a, b: (a, a),
            lambda a, b: (a, a[:]),
            lambda a, b: (b[:1], b[1:]),
            lambda a, b: (a, b[:1]),
        ):
            found, expected = (function(*arguments(image(), image(batch=2))) for function in (compiled, net))
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_under_autocast(caplog: pytest.LogCaptureFixture) -> None:
    """The types and the numbers are those of the model. No lowering takes kernels of another type."""
    model = Blur().eval()
    compiled, x = torch.compile(model, backend="fx_passes"), image()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found, expected = compiled(x), model(x)
    assert found.dtype == expected.dtype
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.2)
    assert caplog.messages[0].startswith("nothing is lowered in this graph")
