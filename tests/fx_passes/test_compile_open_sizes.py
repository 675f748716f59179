"""``torch.compile(model, backend="fx_passes")`` with open sizes: one lowered graph for all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch._functorch.config
import torch._inductor.config
import torch._inductor.graph
import torch.nn.functional as F
from compiled_blur import Blur, image, require_same
from torch import Tensor, nn

from fx_passes import compile_backend
from fx_passes.graph.input_check import InputCheck

pytestmark = pytest.mark.usefixtures("simple_rules", "fresh_compiler")
SHAPES = [(40, 48), (41, 48), (64, 33), (80, 96), (97, 128), (64, 64)]


class BlurPool(nn.Module):
    """Reflection and stride 2."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Buffer(torch.rand(1, 1, 5, 5).repeat(3, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (2, 2, 2, 2), mode="reflect"), self.kernel, stride=2, groups=3)


class Upsampler(nn.Module):
    """A transposed convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Buffer(torch.rand(1, 1, 4, 4).repeat(3, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv_transpose2d(x, self.kernel, stride=2, padding=1, groups=3)


class Lines(nn.Module):
    """The kernel of a line is repeated for as many channels as there are."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Buffer(torch.rand(1, 1, 12))

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x.flatten(2), (5, 6), mode="replicate")
        return F.conv1d(x, self.kernel.expand(x.shape[1], -1, -1), stride=2, groups=x.shape[1])


class Activation(Lines):
    """The anti-aliased activation of a vocoder."""

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x.flatten(2), (5, 5), mode="replicate")
        kernel = self.kernel.expand(x.shape[1], -1, -1)
        x = 2 * F.conv_transpose1d(x, kernel, stride=2, groups=x.shape[1])[..., 15:-15]
        return super().forward(x + x.sin())


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """The graphs that inductor has compiled, also those that it would find in its cache."""
    found: list[Any] = []
    original = torch._inductor.graph.GraphLowering.compile_to_module

    def remember(self: Any, *arguments: Any, **more: Any) -> Any:
        found.append(self)
        return original(self, *arguments, **more)

    monkeypatch.setattr("torch._inductor.graph.GraphLowering.compile_to_module", remember)
    with (
        torch._inductor.config.patch(fx_graph_cache=False),
        torch._functorch.config.patch(enable_autograd_cache=False),
    ):
        yield found


@pytest.mark.slow
@pytest.mark.parametrize("how", ["dynamic", "automatic", "marked"])
@pytest.mark.parametrize(("kind", "sites"), [(Blur, 2), (BlurPool, 1), (Upsampler, 1), (Lines, 1)])
def test_no_more_compilations(
    kind: Callable[[], nn.Module],
    sites: int,
    how: str,
    compilations: list[Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """At six sizes, the model is compiled as often as without the backend. With open sizes, it is lowered."""
    model = kind().eval()

    def count(backend: str) -> int:
        torch.compiler.reset()
        compilations.clear()
        compiled = torch.compile(model, backend=backend, dynamic=True if how == "dynamic" else None)
        for shape in SHAPES:
            x = image(*shape)
            for dim in (2, 3) if how == "marked" else ():
                torch._dynamo.mark_dynamic(x, dim)
            require_same(compiled, model, x)
        return len(compilations)

    assert count("fx_passes") == count("inductor") <= 3
    assert caplog.messages[-1] == f"{sites} convolutions lowered"
    assert len(caplog.messages) <= 3


@pytest.mark.slow
def test_small_sizes() -> None:
    """Sizes of 0 and 1, and sizes too small for the padding, give what the model gives, or an error."""
    model = BlurPool().eval()
    compiled = torch.compile(model, backend="fx_passes", dynamic=True)
    for shape in ((40, 48), (3, 3), (4, 48), (33, 3), (40, 48, 0)):
        require_same(compiled, model, image(*shape))
    for shape in ((2, 40), (1, 40), (40, 1)):
        with torch.no_grad(), pytest.raises(RuntimeError):
            compiled(image(*shape))


@pytest.mark.slow
def test_layouts_in_memory() -> None:
    """Inputs of the same shape, laid out in another order or with gaps."""
    model = Blur().eval()
    compiled = torch.compile(model, backend="fx_passes", dynamic=True)
    for height in (40, 56):
        x = image(height)
        wide = torch.stack((x, x), -1).flatten(3)
        for given in (x, x.to(memory_format=torch.channels_last), x.mT.contiguous().mT, wide[..., ::2]):
            require_same(compiled, model, given)


def test_a_size_that_the_capture_closed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The lowered graph refuses an input. Then the graph of the model runs as it is."""
    model = Blur().eval()
    compiled = torch.compile(model, backend="fx_passes", dynamic=True)
    require_same(compiled, model, image(40))
    monkeypatch.setattr(InputCheck, "accepts", lambda self, given: False)
    # The constants of the lowered graph are wrong from now on.
    monkeypatch.setattr(compile_backend._Compiled, "holds", lambda self, inputs: True)
    model.get_parameter("conv.weight").data.mul_(2)
    require_same(compiled, model, image(44))
    assert caplog.messages == ["2 convolutions lowered"]


@pytest.mark.slow
def test_an_error_of_inductor(caplog: pytest.LogCaptureFixture) -> None:
    """inductor may fail at a lowered graph: torch 2.13 at a transposed one in front of a padding. Then the
    graph of the model runs as it is, and a warning says so."""
    model = Activation().eval()
    compiled = torch.compile(model, backend="fx_passes", dynamic=True)
    for shape in SHAPES[:3]:
        require_same(compiled, model, image(*shape))
    assert caplog.messages[0] == "2 convolutions lowered"
    assert [m.partition(":")[0] for m in caplog.messages[1:]] == ["nothing is lowered in this graph"]


def test_channels_are_not_open(caplog: pytest.LogCaptureFixture) -> None:
    """A kernel is a constant of a lowered graph, and so is the number of its channels."""
    model = Lines().eval()
    compiled = torch.compile(model, backend="fx_passes", dynamic=True)
    for channels in (3, 5, 3):
        for height in (40, 48):
            require_same(compiled, model, torch.rand(2, channels, height, 48))
    assert caplog.messages == ["1 convolutions lowered"] * 2
