"""``torch.compile(model, backend="fx_passes")``: what it does not lower goes to inductor, with a reason."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from compiled_blur import Blur, Scaled, image, require_same
from torch import Tensor, nn

from fx_passes import SharedKernelConv2d, compile_backend

pytestmark = pytest.mark.usefixtures("simple_rules", "fresh_compiler")


# dynamo looks at the gradient of every input, of those as well that have none.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_training_is_left_to_inductor(caplog: pytest.LogCaptureFixture) -> None:
    """Every parameter gets the same gradient as without the backend. The one kernel of a shared module gets
    the sum."""
    model = nn.Sequential(
        Blur().eval(), SharedKernelConv2d(3, 3, 3, groups=3, formulation="polyphase")
    ).train()
    x = image()
    compiled = torch.compile(model, backend="fx_passes")
    model(x).sum().backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    compiled(x).sum().backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-4, atol=1e-3)
    assert "nothing is lowered in this graph: it is compiled for training" in caplog.text


@pytest.mark.slow
def test_gradients_that_the_model_switches_on(caplog: pytest.LogCaptureFixture) -> None:
    """A graph that switches gradients on goes to inductor."""

    class Switches(Scaled):
        def forward(self, x: Tensor) -> Tensor:
            with torch.enable_grad():
                return super().forward(x)

    net = Switches().eval()
    with torch.no_grad():
        found = torch.compile(net, backend="fx_passes")(image())
        assert found.requires_grad
        torch.testing.assert_close(found, net(image()), rtol=1e-4, atol=1e-4)
    assert caplog.messages == ["nothing is lowered in this graph: it switches gradients on or off"]


class Plain(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.relu() + 1


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (Plain(), "it has no convolution"),
        (nn.Conv2d(3, 6, 3, groups=3), "no convolution in it is both shared and faster in another form"),
    ],
)
def test_nothing_to_lower(net: nn.Module, message: str, caplog: pytest.LogCaptureFixture) -> None:
    """The graph goes to inductor as it is, and a warning says why. With new shapes it is the same."""
    compiled = torch.compile(net.eval(), backend="fx_passes")
    for height in (40, 41, 42):
        require_same(compiled, net, image(height))
    assert {record.levelname for record in caplog.records} == {"WARNING"}
    assert set(caplog.messages) == {f"nothing is lowered in this graph: {message}"}


def test_an_error_is_no_end(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error stops the lowering, but not the model."""
    model = Blur().eval()

    def broken(*arguments: Any, **options: Any) -> Any:
        raise RuntimeError("planted")

    monkeypatch.setattr(compile_backend, "lower", broken)
    require_same(torch.compile(model, backend="fx_passes"), model, image())
    assert caplog.messages == ["nothing is lowered in this graph: RuntimeError: planted"]


def test_mode_and_options_go_to_inductor() -> None:
    """They do what they do with torch's own backend."""
    model, x = nn.Sequential(nn.Conv2d(3, 3, 1)).eval(), torch.rand(1, 3, 8, 8)
    expected = model(x)
    for more in ({"mode": "max-autotune-no-cudagraphs"}, {"options": {"epilogue_fusion": False}}):
        torch.compiler.reset()
        with torch.no_grad():
            torch.testing.assert_close(torch.compile(model, backend="fx_passes", **more)(x), expected)
