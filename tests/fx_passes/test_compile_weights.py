"""``torch.compile(model, backend="fx_passes")`` follows weights that change after it compiled."""

from __future__ import annotations

import pytest
import torch
from compiled_blur import Blur, Scaled, image, require_same
from torch import Tensor, nn

from fx_passes import compile_backend

pytestmark = pytest.mark.usefixtures("simple_rules", "fresh_compiler")


class WithoutAutocast(Blur):
    """torch.export makes a separate graph of what is inside the ``with``."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return super().forward(x)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Blur, WithoutAutocast])
def test_weights_that_change(kind: type[Blur], caplog: pytest.LogCaptureFixture) -> None:
    """Before every call, the constants of a lowered graph are compared with their sources. So a change that
    autograd does not see is noticed too."""
    model = kind().eval()
    compiled = torch.compile(model, backend="fx_passes")
    x = image()
    require_same(compiled, model, x)
    for change in (
        lambda: model.conv.weight.data.mul_(2),
        lambda: model.kernel.add_(1),
        lambda: model.get_parameter("conv.bias").data.add_(1),
    ):
        change()
        require_same(compiled, model, x)
    assert caplog.messages == ["2 convolutions lowered"] * 4
    model.mix.weight.data.mul_(2)  # not a constant of the graph: nothing is lowered anew
    require_same(compiled, model, x)
    assert len(caplog.messages) == 4
    model.conv.weight.data[1] += 1  # not shared any more
    require_same(compiled, model, x)
    assert caplog.messages[4:] == ["1 convolutions lowered"]


def test_a_stale_constant_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control of the test above: without the comparison, the numbers are wrong."""
    model = Blur().eval()
    monkeypatch.setattr(compile_backend._Compiled, "holds", lambda self, inputs: True)
    compiled = torch.compile(model, backend="fx_passes")
    require_same(compiled, model, image())
    model.get_parameter("conv.weight").data.mul_(2)
    with pytest.raises(AssertionError):
        require_same(compiled, model, image())


@pytest.mark.slow
@pytest.mark.parametrize("net", [Scaled(), nn.Conv2d(3, 6, 3, groups=3)], ids=["lowered", "not lowered"])
def test_parameters_that_are_replaced(net: nn.Module) -> None:
    """They become another object, by hand or by ``assign=True``, or get other data. Some of them are
    constants of the graph, others are not."""
    net = net.eval()
    compiled, x = torch.compile(net, backend="fx_passes"), image()
    require_same(compiled, net, x)
    for name, parameter in list(net.named_parameters()):
        path, _, leaf = name.rpartition(".")
        setattr(net.get_submodule(path), leaf, nn.Parameter(parameter.detach() * 3))
        require_same(compiled, net, x)
    net.load_state_dict({name: tensor * 2 for name, tensor in net.state_dict().items()}, assign=True)
    require_same(compiled, net, x)
    for parameter in net.parameters():
        parameter.data = parameter.data * 0.5
        require_same(compiled, net, x)
