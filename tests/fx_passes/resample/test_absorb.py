"""What stands around a convolution is taken in where it only moves data, and is left where it does not."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export import Dim
from torch.fx import GraphModule
from torch.fx.passes.fake_tensor_prop import FakeTensorProp

from fx_passes.capture.routes import capture
from fx_passes.graph.operators import base_name
from fx_passes.lower import lower_in_place
from fx_passes.lowerings import propose
from fx_passes.plan import Choice, Plan
from fx_passes.resample.axes import Axis
from fx_passes.resample.site import Site, lowerable_sites

INTEGERS = torch.tensor([[1.0, 2, -1], [0, 3, 1], [-2, 1, 1]])
LINE = torch.tensor([1.0, -2, 3, 1])

Function = Callable[[Any, Tensor], Any]


class Model(nn.Module):
    """A function of an input, with a kernel for four channels, what it may need besides, and convolutions."""

    def __init__(self, function: Function, kernel: Tensor = INTEGERS) -> None:
        super().__init__()
        self.function = function
        self.weight = nn.Buffer(kernel.repeat(4, 1, *[1] * kernel.ndim))
        self.state = nn.Buffer(torch.ones(2, 4, 8, 10))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Any:
        return self.function(self, x)

    def conv(self, x: Tensor, groups: int = 4, **other: Any) -> Tensor:
        """One kernel on each of four channels, or of one."""
        conv = (F.conv1d, F.conv2d)[self.weight.ndim - 3]
        weight = self.weight if groups == 4 else self.weight[:groups]
        return conv(x, weight, groups=groups, **other)

    def up(self, x: Tensor, **other: Any) -> Tensor:
        return F.conv_transpose1d(x, self.weight, groups=4, **other)


def image(*shape: int) -> Tensor:
    """Small integers, with which every sum is exact."""
    return torch.randint(-4, 5, shape or (2, 4, 8, 10)).float()


def lower_all(graph_module: GraphModule) -> list[Site]:
    """Every site in phases where it can be, in place; exact for integers."""
    sites, reasons = lowerable_sites(graph_module)
    assert not reasons
    plan = Plan({site.id: Choice(site.key, _phases(site)) for site in sites})
    assert lower_in_place(graph_module, sites, plan) == len(sites)
    return sites


def _phases(site: Site) -> Any:
    proposals, _ = propose(site.resample, site.kernel)
    return next(
        (p for p in proposals if "polyphase" in p.lowering and "separable" not in p.lowering), proposals[0]
    )


def left(graph_module: GraphModule) -> list[str]:
    """The operators that a graph still has."""
    names = [base_name(node) for node in graph_module.graph.nodes if node.op == "call_function"]
    return [name for name in names if name != "_assert_tensor_metadata"]


def require_equal(model: nn.Module, graph_module: GraphModule, x: Tensor) -> None:
    """The same numbers, and the same bits where nothing was rounded."""
    expected, found = copy.deepcopy(model)(x.clone()), graph_module(x.clone())
    pairs = zip(expected, found, strict=True) if isinstance(expected, tuple) else [(expected, found)]
    for wanted, given in pairs:
        assert given.shape == wanted.shape
        torch.testing.assert_close(given, wanted, rtol=0, atol=0, equal_nan=True)


def upfirdn(model: Model, x: Tensor, up: int, down: int, pad: tuple[int, int]) -> Tensor:
    """``upfirdn2d_native`` of StyleGAN 2, as diffusers has it: each plane on its own, channels last."""
    low, high = pad
    _, channels, height, width = x.shape
    y = x.reshape(-1, height, 1, width, 1, 1)
    y = F.pad(y, [0, 0, 0, up - 1, 0, 0, 0, up - 1]).view(-1, height * up, width * up, 1)
    y = F.pad(y, [0, 0, max(low, 0), max(high, 0), max(low, 0), max(high, 0)])
    y = y[:, max(-low, 0) : y.shape[1] - max(-high, 0), max(-low, 0) : y.shape[2] - max(-high, 0), :]
    y = y.permute(0, 3, 1, 2).reshape([-1, 1, height * up + low + high, width * up + low + high])
    y = model.conv(y, groups=1)
    y = y.reshape(-1, 1, *y.shape[2:]).permute(0, 2, 3, 1)[:, ::down, ::down, :]
    return y.view(-1, channels, y.shape[1], y.shape[2])


def stuffed(x: Tensor, up: int) -> Tensor:
    """Zeros between the columns, and behind the last."""
    return F.pad(x.unsqueeze(-1), (0, up - 1)).flatten(-2)


def axes(height: dict[str, Any], width: dict[str, Any]) -> tuple[Axis, Axis]:
    """Axes of a kernel of 3 x 3."""
    return Axis(3, **height), Axis(3, **width)


# Without padding, a kernel of three taps gives two outputs less.
PLAIN = {"extent": -3}
ABSORBED: dict[str, tuple[Function, tuple[Axis, ...] | None]] = {
    "zeros": (
        lambda m, x: m.conv(F.pad(x, (1, 2, 3, 0))),
        axes({"shift": 3, "extent": 0}, {"shift": 1, "extent": 0}),
    ),
    "zeros, and those of the convolution": (
        lambda m, x: m.conv(F.pad(x, (0, 1, 0, 1)), stride=2, padding=1),
        axes({"shift": 1, "extent": 0, "down": 2}, {"shift": 1, "extent": 0, "down": 2}),
    ),
    "reflected": (
        lambda m, x: m.conv(F.pad(x, (1, 2, 3, 0), mode="reflect")),
        axes({"shift": 3, "extent": 0, "pad": (3, 0)}, {"shift": 1, "extent": 0, "pad": (1, 2)}),
    ),
    "reflected as far as can be": (lambda m, x: m.conv(F.pad(x, (9, 9, 7, 7), mode="reflect")), None),
    "replicated": (
        lambda m, x: m.conv(F.pad(x, (1, 2, 3, 0), mode="replicate")),
        axes({"shift": 3, "extent": 0, "pad": (3, 0)}, {"shift": 1, "extent": 0, "pad": (1, 2)}),
    ),
    "replicated further than it is wide": (
        lambda m, x: m.conv(F.pad(x, (12, 0, 0, 9), mode="replicate")),
        None,
    ),
    "reflected, then zeros of the convolution": (
        lambda m, x: m.conv(F.pad(x, (1, 1, 1, 1), mode="reflect"), padding=2, dilation=2),
        axes(
            {"shift": 3, "extent": 1, "pad": (1, 1), "dilation": 2},
            {"shift": 3, "extent": 1, "pad": (1, 1), "dilation": 2},
        ),
    ),
    "one axis reflected, the other zeros": (
        lambda m, x: m.conv(F.pad(F.pad(x, (2, 1, 0, 0)), (0, 0, 1, 2), mode="reflect")),
        axes({"shift": 1, "extent": 0, "pad": (1, 2)}, {"shift": 2, "extent": 0}),
    ),
    "padded further than kept": (
        lambda m, x: m.conv(F.pad(x, (3, 3, 0, 0), mode="reflect")[..., 2:-1]),
        axes(PLAIN, {"shift": 1, "extent": 0, "pad": (1, 2)}),
    ),
    "ReflectionPad2d": (
        lambda m, x: m.conv(nn.ReflectionPad2d((1, 2, 3, 0))(x)),
        axes({"shift": 3, "extent": 0, "pad": (3, 0)}, {"shift": 1, "extent": 0, "pad": (1, 2)}),
    ),
    "ReplicationPad2d": (
        lambda m, x: m.conv(nn.ReplicationPad2d(1)(x)),
        axes({"shift": 1, "extent": -1, "pad": (1, 1)}, {"shift": 1, "extent": -1, "pad": (1, 1)}),
    ),
    "ZeroPad2d": (
        lambda m, x: m.conv(nn.ZeroPad2d((1, 0, 0, 2))(x)),
        axes({"extent": -1}, {"shift": 1, "extent": -2}),
    ),
    "padding below zero": (
        lambda m, x: m.conv(F.pad(x, (-2, 1, 1, -3))),
        axes({"shift": 1, "extent": -5}, {"shift": -2, "extent": -4}),
    ),
    "cropped in front": (
        lambda m, x: m.conv(x[..., 2:-1]),
        axes(PLAIN, {"shift": -2, "extent": -6}),
    ),
    "zeros stuffed in": (
        lambda m, x: m.conv(stuffed(x, 3)),
        axes(PLAIN, {"up": 3, "extent": -3}),
    ),
    "zeros stuffed in, padded, cropped": (
        lambda m, x: m.conv(F.pad(stuffed(x, 2), (2, 1, 0, 0))[..., 1:]),
        axes(PLAIN, {"up": 2, "shift": 1, "extent": -1}),
    ),
    "upfirdn2d, up": (
        lambda m, x: upfirdn(m, x, up=2, down=1, pad=(2, 1)),
        axes({"up": 2, "shift": 2, "extent": 0}, {"up": 2, "shift": 2, "extent": 0}),
    ),
    "upfirdn2d, down": (
        lambda m, x: upfirdn(m, x, up=1, down=2, pad=(1, 1)),
        axes({"down": 2, "shift": 1, "extent": -2}, {"down": 2, "shift": 1, "extent": -2}),
    ),
    "upfirdn2d, up and cropped": (lambda m, x: upfirdn(m, x, up=2, down=1, pad=(-1, 3)), None),
    "cropped behind": (
        lambda m, x: m.conv(x)[..., 1:-2],
        axes({"extent": -3}, {"shift": -1, "extent": -6}),
    ),
    "every other kept": (
        lambda m, x: m.conv(x, padding=1)[..., ::2, 1::3],
        axes({"shift": 1, "down": 2, "extent": -2}, {"shift": 0, "down": 3, "extent": -4}),
    ),
    "one column kept": (
        lambda m, x: m.conv(x)[..., 3:4],
        axes({"extent": -3}, {"shift": -3, "extent": -10}),
    ),
    "narrow and slice": (lambda m, x: m.conv(x).narrow(3, 1, 4).narrow(2, 0, 5)[:, :, 1:], None),
    "there and back": (
        lambda m, x: m.conv(x.permute(0, 2, 3, 1).permute(0, 3, 1, 2)).movedim(1, -1).movedim(-1, 1),
        axes(PLAIN, PLAIN),
    ),
    "planes as items": (
        lambda m, x: m.conv(x.reshape(8, 1, 8, 10), groups=1).view(2, 4, 6, 8),
        axes(PLAIN, PLAIN),
    ),
    "planes as channels": (
        lambda m, x: m.conv(x.unsqueeze(0).flatten(1, 2).view(2, 4, 8, 10)).unflatten(0, (1, 2)).squeeze(0),
        axes(PLAIN, PLAIN),
    ),
    "no data moved": (
        lambda m, x: m.conv(F.pad(x.contiguous().clone().detach(), (1, 0)).to(torch.float32)).clone(),
        axes(PLAIN, {"shift": 1, "extent": -2}),
    ),
    "times a number": (lambda m, x: m.conv(x) * 0.5, axes(PLAIN, PLAIN)),
    "a number times, twice": (lambda m, x: torch.mul(2 * m.conv(x)[..., 1:], -4), None),
    "a bias scaled as well": (
        lambda m, x: 2 * m.conv(F.pad(x, (1, 1)), bias=torch.arange(4.0))[..., 1:],
        None,
    ),
    "everything": (
        lambda m, x: (m.conv(F.pad(x, (2, 2, 1, 1)), stride=(1, 2))[..., 1:] * 0.25)[:, :, ::2],
        None,
    ),
}


@pytest.mark.parametrize("name", ABSORBED)
def test_absorbed(name: str) -> None:
    """Nothing but the lowered module is left, it computes what the model did, and its axes are as derived."""
    function, expected = ABSORBED[name]
    model, x = Model(function), image()
    graph_module = capture(model, (x,)).graph_module
    (site,) = lower_all(graph_module)
    assert left(graph_module) == []
    require_equal(model, graph_module, x)
    if expected is not None:
        assert site.resample.axes == expected


def test_absorbed_in_one_dimension() -> None:
    """A vocoder's resampling: replicated, transposed, cropped, scaled; on a line, and on rows of an image."""
    model = Model(lambda m, x: 2 * m.up(F.pad(x, (5, 5), mode="replicate"), stride=2)[..., 7:-6], LINE)
    x = image(2, 4, 30)
    graph_module = capture(model, (x,)).graph_module
    (site,) = lower_all(graph_module)
    assert left(graph_module) == []
    # Of a transposed convolution, tap 0 of output 0 lies the span of the kernel to the left.
    whole = (30 + 10 - 1) * 2 + 4
    assert site.resample.axes == (Axis(4, up=2, shift=3 + 10 - 7, extent=whole - 13 - 1 - 60, pad=(5, 5)),)
    assert (site.resample.mode, site.resample.scale) == ("replicate", 2.0)
    require_equal(model, graph_module, x)
    rows = Model(lambda m, x: m.conv(F.pad(x.reshape(10, 4, 20), (2, 0))).view(2, 5, 4, 17 + 2), LINE)
    x = image(2, 5, 4, 20)
    graph_module = capture(rows, (x,)).graph_module
    lower_all(graph_module)
    assert left(graph_module) == []
    require_equal(rows, graph_module, x)


def test_absorbed_without_a_batch() -> None:
    """An image without batch or channel dimensions."""
    model, x = Model(lambda m, x: m.conv(F.pad(x[None, None], (1, 1)), groups=1)[0, 0, 1:]), image(8, 10)
    graph_module = capture(model, (x,)).graph_module
    lower_all(graph_module)
    assert left(graph_module) == []
    require_equal(model, graph_module, x)


def write_between(m: Model, x: Tensor) -> Tensor:
    y = F.pad(x, (1, 1))
    y.mul_(2)
    return m.conv(y)


def write_after_pad(m: Model, x: Tensor) -> Tensor:
    x = x + 1
    y = F.pad(x, (1, 1))
    x.zero_()
    return m.conv(y) + x.sum()


def write_into_result(m: Model, x: Tensor) -> Tensor:
    y = m.conv(x)
    view = y[..., 1:]
    y.add_(1)
    return view


# What is left in the graph, in its order; None where it has other names there than the model wrote.
KEPT: dict[str, tuple[Function, list[str] | None]] = {
    "a pad with another user": (lambda m, x: (m.conv(y := F.pad(x, (1, 1))), y), ["pad"]),
    "a pad of ones": (lambda m, x: m.conv(F.pad(x, (1, 1), value=1.0)), ["pad"]),
    "a pad of halves": (lambda m, x: m.conv(F.pad(x, (1, 1), value=0.5)), ["pad"]),
    "a pad of ones behind zeros": (lambda m, x: m.conv(F.pad(F.pad(x, (1, 1), value=1.0), (1, 1))), ["pad"]),
    "a pad around": (lambda m, x: m.conv(F.pad(x, (1, 1, 1, 1), mode="circular")), ["pad"]),
    "a pad of channels": (lambda m, x: m.conv(F.pad(x[:, 1:], (0, 0, 0, 0, 0, 1))), ["slice", "pad"]),
    "a pad of the batch": (lambda m, x: m.conv(F.pad(x, (0, 0, 0, 0, 0, 0, 1, 0))), ["pad"]),
    "a pad behind": (lambda m, x: F.pad(m.conv(x), (1, 1)), ["pad"]),
    "reflected, then zeros": (
        lambda m, x: m.conv(F.pad(F.pad(x, (1, 1, 0, 0), mode="reflect"), (1, 1))),
        ["pad"],
    ),
    "zeros, then reflected": (
        lambda m, x: m.conv(F.pad(F.pad(x, (1, 1)), (2, 2, 0, 0), mode="reflect")),
        ["pad"],
    ),
    "zeros stuffed in, then reflected": (
        lambda m, x: m.conv(F.pad(stuffed(x, 2), (2, 2, 0, 0), mode="reflect")),
        ["unsqueeze", "pad", "flatten"],
    ),
    "two modes": (
        lambda m, x: m.conv(F.pad(F.pad(x, (1, 1, 0, 0), mode="replicate"), (0, 0, 1, 1), mode="reflect")),
        ["pad"],
    ),
    "a flip": (lambda m, x: m.conv(x.flip(-1)), ["flip"]),
    "a flip of a part": (lambda m, x: m.conv(x[..., 2:].flip(-1)[..., 1:]), ["slice", "flip"]),
    "a flip behind": (lambda m, x: m.conv(x).flip(-2), ["flip"]),
    "a roll": (lambda m, x: m.conv(x.roll(1, -1)), ["roll"]),
    "every other in front": (lambda m, x: m.conv(x[..., ::2]), ["slice"]),
    "an expand": (lambda m, x: m.conv(x[:1].expand(3, 4, 8, 10)), ["slice", "expand"]),
    "height and width exchanged": (lambda m, x: m.conv(x.transpose(2, 3)), ["transpose"]),
    "height and width exchanged behind": (lambda m, x: m.conv(x).mT, ["mT"]),
    "channels in another order": (
        lambda m, x: m.conv(x.reshape(2, 2, 2, 8, 10).transpose(1, 2).flatten(1, 2)),
        None,
    ),
    "columns taken twice": (lambda m, x: m.conv(x)[..., torch.tensor([0, 0, 1])], None),
    "windows that overlap": (lambda m, x: m.conv(x).unfold(3, 2, 1).sum(-1), ["unfold", "sum"]),
    "strides that overlap": (
        lambda m, x: m.conv(x.as_strided((2, 4, 8, 9), (320, 80, 10, 1))),
        ["as_strided"],
    ),
    "times a tensor": (lambda m, x: m.conv(x) * torch.tensor(2.0), None),
    "times itself": (lambda m, x: (y := m.conv(x)) * y, ["mul"]),
    "times zero": (lambda m, x: m.conv(x) * 0, ["mul"]),
    "times a number, in front": (lambda m, x: m.conv(x * 2), ["mul"]),
    "plus a number": (lambda m, x: m.conv(x) + 2, ["add"]),
    "two readers of the result": (lambda m, x: (m.conv(x)[..., 1:], m.conv(x)[..., :-1]), []),
    "a result that is read twice": (
        lambda m, x: ((y := m.conv(x))[..., 1:], y[..., :-1]),
        ["slice", "slice"],
    ),
    "a result that is an output": (lambda m, x: ((y := m.conv(x)), y[..., 1:]), ["slice"]),
    "another dtype in front": (
        lambda m, x: m.conv(F.pad((x.double() * 2).float(), (1, 1))),
        ["to", "mul", "to"],
    ),
    "another dtype behind": (lambda m, x: m.conv(x).double()[..., 1:], ["to", "slice"]),
    "a write between pad and convolution": (write_between, ["pad", "mul_"]),
    "a write into what was padded": (write_after_pad, ["add", "pad", "zero_", "sum", "add"]),
    "a write into the result": (write_into_result, ["slice", "add_"]),
}


@pytest.mark.parametrize("name", KEPT)
def test_kept(name: str) -> None:
    """What cannot be taken in stays in the graph, and the model computes what it did."""
    function, expected = KEPT[name]
    model, x = Model(function), image()
    graph_module = capture(model, (x,)).graph_module
    lower_all(graph_module)
    operators = left(graph_module)
    assert operators if expected is None else operators == expected
    require_equal(model, graph_module, x)


def test_what_is_needed_elsewhere_is_not_computed_again() -> None:
    """A pad with another user stays, and so does the convolution of what was padded."""
    model, x = Model(KEPT["a pad with another user"][0]), image()
    (site,) = lower_all(capture(model, (x,)).graph_module)
    assert site.source == "pad"
    assert site.resample.axes == axes(PLAIN, PLAIN)


@pytest.mark.parametrize("open_size", [0, 2, 3])
def test_nothing_is_absorbed_where_a_size_is_open(open_size: int) -> None:
    """Maps of elements need sizes; the convolution itself is lowered, and right at any other size."""
    model, x = Model(lambda m, x: m.conv(F.pad(x, (1, 1, 0, 0), mode="reflect"))[..., 1:] * 2), image()
    sizes = {open_size: Dim("size", min=5 if open_size else 1, max=64)}
    program = torch.export.export(model, (x,), dynamic_shapes={"x": sizes})
    graph_module = capture(program).graph_module
    (site,) = lower_all(graph_module)
    assert left(graph_module) == ["pad", "slice", "mul"]
    assert site.resample.axes == axes(PLAIN, PLAIN)
    assert not site.resample.static
    for size in (6, 8, 33):
        shape = [2, 4, 8, 10]
        shape[open_size] = size
        require_equal(model, graph_module, image(*shape))


def test_nothing_is_absorbed_across_a_write_by_a_module() -> None:
    """A graph of modules with sizes: what the module writes into is read before, and a write stops nothing
    else."""
    model, x = Model(lambda m, x: m.conv(F.pad(m.relu(x), [1, 1]))), image()
    graph_module = with_sizes(model, x)
    lower_all(graph_module)
    require_equal(model, graph_module, x)


def with_sizes(model: nn.Module, x: Tensor) -> GraphModule:
    """A symbolic trace, whose nodes know their shapes as those of an export do."""
    graph_module = torch.fx.symbolic_trace(model)
    FakeTensorProp(graph_module, FakeTensorMode(allow_non_fake_inputs=True)).propagate(x)
    return graph_module


# What does not hold yet: the model, its input, and what goes wrong.


def buffer_written(m: Model, x: Tensor) -> Tensor:
    y = F.pad(m.state, (1, 1))
    m.state.add_(1)
    return m.conv(y) + x.sum()


SMALL = torch.tensor([[1.0, 2, 1], [0, 0, 0], [-1, -2, -1]]) * 1e-3
FAULTS: dict[str, tuple[Function, Tensor]] = {
    "cropped, then padded by the convolution": (
        lambda m, x: m.conv(x[..., 1:-2], padding=1),
        image(),
    ),
    "padded below zero, then padded": (lambda m, x: m.conv(F.pad(x, (-1, 1)), padding=1), image()),
    "cropped, then transposed": (
        lambda m, x: F.conv_transpose2d(x[:, :, 2:], m.weight, groups=4, stride=2),
        image(),
    ),
    "half and back in front": (lambda m, x: m.conv((x / 3).half().float()), image()),
    "integers and back in front": (lambda m, x: m.conv((x / 3).int().float()), image()),
    "half and back behind": (lambda m, x: (m.conv(x) * 1001).half().float(), image()),
    "the odd columns in front": (lambda m, x: m.conv(x[..., 1::2]), image()),
    "a crop followed by a pad": (lambda m, x: m.conv(F.pad(x[..., 2:-2], (2, 2))), image()),
    "reflected and cropped by more": (
        lambda m, x: m.conv(F.pad(x, (2, 2, 0, 0), mode="reflect")[..., 4:]),
        image(),
    ),
    "the first channels in front": (lambda m, x: m.conv(x[:, :4]), image(1, 8, 8, 10)),
    "the first item in front": (lambda m, x: m.conv(x[:1]), image()),
    "the first channels behind": (lambda m, x: m.conv(x)[:, :2], image(1, 4, 8, 10)),
    "the first item behind": (lambda m, x: m.conv(x)[0], image()),
    "no channels behind": (lambda m, x: m.conv(x)[:, :0], image()),
    "no columns behind": (lambda m, x: m.conv(x)[..., :0], image()),
    "flattened by view": (lambda m, x: m.conv(x).view(2, -1), image()),
    "channels last and viewed": (
        lambda m, x: m.conv(x).permute(0, 2, 3, 1).view(2, -1),
        image().to(memory_format=torch.channels_last),
    ),
    "replicated from one row": (
        lambda m, x: m.conv(F.pad(x, (0, 0, 1, 1), mode="replicate")),
        image(2, 4, 1, 10),
    ),
    "a buffer written to in between": (
        buffer_written,
        image(),
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults(name: str) -> None:
    """Whether it is absorbed or kept, the model computes what it did."""
    function, x = FAULTS[name]
    model = Model(function)
    graph_module = capture(model, (x,)).graph_module
    expected = copy.deepcopy(model)(x)
    if "channels last" in name:
        assert "not laid out" in str(lowerable_sites(graph_module)[1])
        return
    lower_all(graph_module)
    assert torch.equal(graph_module(x), expected)


# Type, size of the taps, of the input, the number, and how often the output is multiplied with it.
TOO_LARGE = {
    "half": (torch.float16, 100.0, 1e-3, 1000.0, 1),
    "large taps": (torch.float32, 1e30, 1e-10, 1e11, 1),
    "several numbers": (torch.float32, 1.0, 1e-15, 2.0**39, 4),
}


@pytest.mark.parametrize("way", TOO_LARGE)
def test_numbers_that_the_kernel_cannot_take_together(way: str) -> None:
    """The kernel times the number is no finite number of its type, and the output is."""
    dtype, taps, size, number, times = TOO_LARGE[way]

    def function(m: Model, x: Tensor) -> Tensor:
        y = m.conv(x)
        for _ in range(times):
            y = y * number
        return y

    model, x = Model(function, INTEGERS * taps).to(dtype), (image() * size).to(dtype)
    expected = model(x)
    assert expected.isfinite().all()
    graph_module = capture(model, (x,)).graph_module
    lower_all(graph_module)
    torch.testing.assert_close(graph_module(x), expected, rtol=1e-2, atol=float(expected.abs().max()) * 1e-2)


@pytest.mark.parametrize("number", [1e-42, torch.inf])
def test_a_number_that_the_kernel_cannot_take(number: float) -> None:
    """What is too small, or too large, to be multiplied into the taps."""
    model = Model(lambda m, x: m.conv(x) * number, SMALL)
    x = 1e3 * torch.arange(1.0, 9)[:, None] ** 3 + torch.rand(2, 4, 8, 10)
    graph_module = capture(model, (x,)).graph_module
    lower_all(graph_module)
    torch.testing.assert_close(graph_module(x), model(x), rtol=1e-3, atol=0)


def test_a_write_by_a_module_in_between() -> None:
    """A ReLU in place, after what it writes into was padded."""

    def write(m: Model, x: Tensor) -> Tensor:
        y = F.pad(x, [1, 1])
        return m.conv(y) + m.relu(x).sum()

    def write_first(m: Model, x: Tensor) -> Tensor:
        y = F.pad(x, [1, 1])
        m.relu(x)
        return m.conv(y)

    for function in (write, write_first):
        model, x = Model(function), image()
        graph_module = with_sizes(model, x.clone())
        lower_all(graph_module)
        require_equal(model, graph_module, x)


def test_arguments_by_name() -> None:
    """``torch.reshape(input=...)`` in a symbolic trace has no positional argument."""
    model, x = Model(lambda m, x: m.conv(torch.reshape(input=x, shape=(2, 4, 8, 10)))), image()
    graph_module = with_sizes(model, x)
    lower_all(graph_module)
    require_equal(model, graph_module, x)
