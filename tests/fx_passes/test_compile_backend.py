"""``torch.compile(model, backend="fx_passes")``: correct whatever changes, and it says what it does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fx_passes import SharedKernelConv2d, compile_backend

pytestmark = pytest.mark.usefixtures("simple_rules")

LOGGER = "fx_passes.compile_backend"


class Blur(nn.Module):
    """Repeats as a parameter with a bias, and as a buffer; a convolution that is not shared between them."""

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 3, 9, padding=4, groups=3)
        self.mix = nn.Conv2d(3, 3, 1)
        self.register_buffer("kernel", torch.rand(1, 1, 5, 5))
        with torch.no_grad():
            self.conv.weight.copy_(self.conv.weight[:1].clone().expand_as(self.conv.weight))

    def forward(self, x: Tensor) -> Tensor:
        x = self.mix(self.conv(x).relu())
        return F.conv2d(F.pad(x, (2, 2, 2, 2), mode="reflect"), self.kernel.repeat(3, 1, 1, 1), groups=3)


@pytest.fixture(autouse=True)
def fresh(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    torch.compiler.reset()
    caplog.set_level("INFO", logger=LOGGER)
    yield
    torch.compiler.reset()


@pytest.fixture
def model() -> nn.Module:
    return Blur().eval()


def image(height: int = 40, width: int = 48, batch: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(height * width)
    return torch.randn(batch, 3, height, width, generator=generator)


def require_same(compiled: Any, model: nn.Module, x: Tensor) -> None:
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_it_is_registered(model: nn.Module, caplog: pytest.LogCaptureFixture) -> None:
    """By its name, as ``torch.compile`` takes it."""
    assert "fx_passes" in torch.compiler.list_backends()
    require_same(torch.compile(model, backend="fx_passes"), model, image())
    assert caplog.messages == ["2 convolutions lowered"]


@pytest.mark.slow
def test_new_shapes(model: nn.Module, caplog: pytest.LogCaptureFixture) -> None:
    """In a graph of open sizes, each set of shapes is lowered for itself, once."""
    compiled = torch.compile(model, backend="fx_passes", dynamic=True)
    shapes = [(40, 48), (41, 48), (64, 33), (40, 48), (41, 48), (64, 33)]
    for height, width in shapes:
        require_same(compiled, model, image(height, width))
    assert caplog.messages == ["2 convolutions lowered"] * 3
    require_same(compiled, model, image(batch=4))


@pytest.mark.slow
def test_sizes_that_open_by_themselves(model: nn.Module) -> None:
    """As torch.compile does it: the second shape makes the graph one of open sizes."""
    compiled = torch.compile(model, backend="fx_passes")
    for height, width in [(40, 48), (41, 48), (64, 33), (40, 48)]:
        require_same(compiled, model, image(height, width))


@pytest.mark.slow
def test_few_graphs_are_kept(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that was not used for longest goes."""
    monkeypatch.setattr(compile_backend, "_KEPT", 2)
    kept: list[Any] = []
    original = compile_backend._Inference.__init__

    def remember(self: Any, *arguments: Any) -> None:
        original(self, *arguments)
        kept.append(self.kept)

    monkeypatch.setattr(compile_backend._Inference, "__init__", remember)
    compiled = torch.compile(model, backend="fx_passes", dynamic=True)
    for height in (40, 41, 42, 41, 43):
        require_same(compiled, model, image(height))
    (shapes,) = kept
    assert [next(part[0] for part in key if isinstance(part, tuple))[2] for key in shapes] == [41, 43]


class WithoutAutocast(Blur):
    """torch.export makes a graph of its own of what is in there."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return super().forward(x)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Blur, WithoutAutocast])
def test_weights_that_change(kind: type[Blur], caplog: pytest.LogCaptureFixture) -> None:
    """Constants of a lowered graph are compared with their sources before every call, also past autograd."""
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


def test_a_stale_constant_would_be_seen(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control of the test above."""
    monkeypatch.setattr(compile_backend._Compiled, "holds", lambda self, inputs: True)
    compiled = torch.compile(model, backend="fx_passes")
    require_same(compiled, model, image())
    model.get_parameter("conv.weight").data.mul_(2)
    with pytest.raises(AssertionError):
        require_same(compiled, model, image())


# dynamo looks at the gradient of every input, of those as well that have none.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_training_is_left_to_inductor(model: nn.Module, caplog: pytest.LogCaptureFixture) -> None:
    """Every parameter gets the gradient it has without; the kernel of a shared module the sum."""
    model = nn.Sequential(model, SharedKernelConv2d(3, 3, 3, groups=3, formulation="polyphase")).train()
    x = image()
    compiled = torch.compile(model, backend="fx_passes")
    model(x).sum().backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    compiled(x).sum().backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-4, atol=1e-3)
    assert "nothing is lowered in this graph: it is compiled for training" in caplog.text


class Scaled(Blur):
    """With a parameter that is no constant of the lowered graph, and one without any convolution to lower."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.scale


@pytest.mark.slow
@pytest.mark.parametrize("net", [Scaled(), nn.Conv2d(3, 6, 3, groups=3)], ids=["lowered", "not lowered"])
def test_parameters_that_are_replaced(net: nn.Module) -> None:
    """By another object, by ``assign=True``, by other data: baked into the graph or not."""
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


def test_inputs_that_overlap() -> None:
    """The graph writes into one input; whether the other is the same memory changes from call to call."""

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


@pytest.mark.slow
def test_gradients_that_the_model_switches_on(caplog: pytest.LogCaptureFixture) -> None:
    """A graph that does so goes to inductor."""

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


def test_under_autocast(model: nn.Module, caplog: pytest.LogCaptureFixture) -> None:
    """The types that the model gives there, and its numbers; no lowering takes kernels of another type."""
    compiled, x = torch.compile(model, backend="fx_passes"), image()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found, expected = compiled(x), model(x)
    assert found.dtype == expected.dtype
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.2)
    assert caplog.messages[0].startswith("nothing is lowered in this graph")


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
    """The graph goes to inductor as it is, and a warning says why; with new shapes as well."""
    compiled = torch.compile(net.eval(), backend="fx_passes")
    for height in (40, 41, 42):
        require_same(compiled, net, image(height))
    assert {record.levelname for record in caplog.records} == {"WARNING"}
    assert set(caplog.messages) == {f"nothing is lowered in this graph: {message}"}


def test_an_error_is_no_end(
    model: nn.Module, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stops the lowering does not stop the model."""

    def broken(*arguments: Any, **options: Any) -> Any:
        raise RuntimeError("planted")

    monkeypatch.setattr(compile_backend, "lower", broken)
    require_same(torch.compile(model, backend="fx_passes"), model, image())
    assert caplog.messages == ["nothing is lowered in this graph: RuntimeError: planted"]


def test_mode_and_options_go_to_inductor() -> None:
    """As with torch's own backend."""
    model, x = nn.Sequential(nn.Conv2d(3, 3, 1)).eval(), torch.rand(1, 3, 8, 8)
    expected = model(x)
    for more in ({"mode": "max-autotune-no-cudagraphs"}, {"options": {"epilogue_fusion": False}}):
        torch.compiler.reset()
        with torch.no_grad():
            torch.testing.assert_close(torch.compile(model, backend="fx_passes", **more)(x), expected)
