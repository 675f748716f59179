"""What an export or a lowering freezes: what can be trained is a constant, and memory has no order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fx_passes
from fx_passes import compile_backend
from fx_passes.capture.inference import capture_for_inference
from fx_passes.capture.routes import capture
from fx_passes.find.find_kernels import judge_graph
from fx_passes.records import Finding
from fx_passes.resample.lowerable import lowerable_sites

pytestmark = pytest.mark.usefixtures("simple_rules")

X = torch.rand(1, 6, 40, 40)


def repeated() -> nn.Conv2d:
    conv = nn.Conv2d(6, 6, 9, groups=6, padding=4)
    conv.weight.data = torch.rand(1, 1, 9, 9).repeat(6, 1, 1, 1)
    return conv


class Gained(nn.Module):
    """The weight is a parameter times a gain that can be trained."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.gain = repeated(), nn.Parameter(torch.tensor(0.7))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.conv.weight * self.gain, padding=4, groups=6)


NORMED: dict[str, Callable[[], nn.Module]] = {
    "weight norm": lambda: nn.utils.parametrizations.weight_norm(repeated()),
    "weight norm, old": lambda: nn.utils.weight_norm(repeated()),
    "spectral norm": lambda: nn.utils.parametrizations.spectral_norm(repeated()),
    "spectral norm, old": lambda: nn.utils.spectral_norm(repeated()),
    "gain": Gained,
}


def found(model: nn.Module, x: Tensor = X, *, frozen: bool) -> Finding:
    (verdict,) = judge_graph(capture(model, (x,)).graph_module, frozen=frozen)
    return verdict.finding


@pytest.mark.parametrize("name", NORMED)
def test_computed_from_what_can_be_trained(name: str) -> None:
    """A constant for who freezes it; for who trains it, every repeat goes its own way."""
    model = nn.Sequential(NORMED[name]()).eval()
    assert found(model, frozen=True).shared
    finding = found(model, frozen=False)
    assert not finding.shared
    assert "trainable" in str(finding.reason)
    lowered = fx_passes.lower(model, "static", (X,))
    assert any(hasattr(module, "resample") for module in lowered.modules())
    torch.testing.assert_close(lowered(X), model(X), rtol=1e-4, atol=1e-5)
    assert not any("expand" in str(n.target) for n in fx_passes.share_kernels(model, (X,)).graph.nodes)


def test_a_compiled_model_follows_its_norm(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tensors that the weight is computed from are watched: after a step it is lowered anew."""
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(repeated())).eval()
    torch._dynamo.reset()
    compiled = torch.compile(model, backend=lambda graph, _: compile_backend._Inference(graph, {}))
    made: list[nn.Module] = []

    def as_it_is(module: nn.Module, **_: Any) -> nn.Module:
        made.append(module)
        return module

    monkeypatch.setattr(torch, "compile", as_it_is)  # what inductor makes of it is no matter here
    with torch.no_grad():
        torch.testing.assert_close(compiled(X), model(X), rtol=1e-4, atol=1e-5)
        model.get_parameter("0.parametrizations.weight.original0").mul_(2)
        torch.testing.assert_close(compiled(X), model(X), rtol=1e-4, atol=1e-5)
    assert sum(any(hasattr(m, "resample") for m in module.modules()) for module in made) == 2


class Quantised(nn.Module):
    """A weight that is rounded to integers and back: each repeat, or the kernel before it is repeated."""

    def __init__(self, before: bool) -> None:
        super().__init__()
        self.before = before
        self.kernel = nn.Buffer(torch.rand(1, 1, 9, 9))
        self.repeats = nn.Buffer(self.kernel.repeat(6, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        weight: Tensor = self.kernel if self.before else self.repeats
        weight = torch.fake_quantize_per_tensor_affine(weight, 0.01, 0, -128, 127)
        return F.conv2d(x, weight.expand(6, 1, 9, 9), padding=4, groups=6)


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("before", [True, False])
def test_quantised_weights_stay(before: bool, frozen: bool) -> None:
    """They are for kernels of integers, which have to see them; that is what the reason says."""
    finding = found(Quantised(before), frozen=frozen)
    assert finding.refusal is not None
    assert finding.refusal.code == "quantised"
    assert "the weight is quantised by `fake_quantize_per_tensor_affine" in finding.refusal.reason


def strided(weight: Tensor) -> nn.Module:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(weight)

        def forward(self, x: Tensor) -> Tensor:
            conv = F.conv3d if self.weight.ndim == 5 else F.conv2d
            return conv(x, self.weight, groups=self.weight.shape[0])

    return Plain().eval()


def weights() -> dict[str, tuple[Tensor, bool]]:
    """Weights in some order of memory, and whether torch takes the order of the output from them."""
    plane, volume = torch.rand(1, 1, 3, 3).repeat(6, 1, 1, 1), torch.rand(1, 1, 3, 3, 3).repeat(6, 1, 1, 1, 1)
    return {
        "contiguous": (plane, False),
        "permuted": (plane.permute(2, 3, 1, 0).contiguous().permute(3, 2, 0, 1), False),
        "transposed taps": (plane.mT.contiguous().mT, False),
        "channels last": (plane.to(memory_format=torch.channels_last), True),
        "a part of more": (plane.repeat(1, 2, 1, 1).to(memory_format=torch.channels_last)[:, :1], True),
        "expanded": (plane[:1].expand(6, 1, 3, 3), False),
        "channels last, 3-D": (volume.to(memory_format=torch.channels_last_3d), True),
        "contiguous, 3-D": (volume, False),
    }


@pytest.mark.parametrize("name", weights())
def test_an_order_in_memory_stops_who_trains_and_nobody_else(name: str) -> None:
    """Refused is what torch takes the order of the output from, as torch itself shows."""
    weight, takes = weights()[name]
    model, x = strided(weight), torch.rand(1, 6, *[12] * (weight.ndim - 2))
    assert model(x).is_contiguous() != takes
    finding = found(model, x, frozen=False)
    assert finding.shared != takes
    if takes:
        assert "channels_last" in str(finding.reason)
    assert found(model, x, frozen=True).shared


def test_lowered_where_the_order_does_not_matter() -> None:
    """In torch, what follows may rely on the order of the output; in an export nothing does."""
    weight = torch.rand(1, 1, 9, 9).repeat(6, 1, 1, 1).to(memory_format=torch.channels_last)
    graph_module = capture_for_inference(strided(weight), (X,)).graph_module
    verdicts = judge_graph(graph_module, frozen=True)
    sites, reasons = lowerable_sites(graph_module, verdicts)
    assert sites == []
    assert "not laid out in the order of its dimensions" in str(reasons)
    sites, reasons = lowerable_sites(graph_module, verdicts, any_order=True)
    assert len(sites) == 1
    assert reasons == {}


@pytest.mark.parametrize("behind", [nn.BatchNorm2d(6), nn.Sequential(nn.BatchNorm2d(6), nn.ReLU())])
def test_a_batch_norm_behind_stops_nothing_in_torch(behind: nn.Module) -> None:
    """No exporter is there to multiply its scale into the weight."""
    model = nn.Sequential(repeated(), behind).eval()
    lowered = fx_passes.lower(model, "static", (X,))
    assert any(hasattr(module, "resample") for module in lowered.modules())
    torch.testing.assert_close(lowered(X), model(X), rtol=1e-4, atol=1e-5)
