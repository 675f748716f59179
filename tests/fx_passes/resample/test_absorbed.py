"""A site takes in what only moves data around its convolution."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from surroundings import PLAIN, Function, Model, axes, image, left, lower_all, require_equal, stuffed
from torch import Tensor, nn

from fx_passes.capture.routes import capture
from fx_passes.resample.axes import Axis

LINE = torch.tensor([1.0, -2, 3, 1])


def upfirdn(model: Model, x: Tensor, up: int, down: int, pad: tuple[int, int]) -> Tensor:
    """Do what ``upfirdn2d_native`` of StyleGAN 2 does, as diffusers has it: each plane by itself, channels
    last."""
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


# By name: what the model does, and the axes that follow from it; None where they are not written out.
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
    """Only the lowered module is left. It computes what the model did, and its axes are those expected."""
    function, expected = ABSORBED[name]
    model, x = Model(function), image()
    graph_module = capture(model, (x,)).graph_module
    (site,) = lower_all(graph_module)
    assert left(graph_module) == []
    require_equal(model, graph_module, x)
    if expected is not None:
        assert site.resample.axes == expected


def test_absorbed_in_one_dimension() -> None:
    """A vocoder replicates, transposes, crops and scales a line. Another model pads and filters rows of an
    image."""
    model = Model(lambda m, x: 2 * m.up(F.pad(x, (5, 5), mode="replicate"), stride=2)[..., 7:-6], LINE)
    x = image(2, 4, 30)
    graph_module = capture(model, (x,)).graph_module
    (site,) = lower_all(graph_module)
    assert left(graph_module) == []
    # The convolution is transposed: tap 0 of output 0 lies to the left, by the span of the kernel.
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
    """The image has no batch and no channels."""
    model, x = Model(lambda m, x: m.conv(F.pad(x[None, None], (1, 1)), groups=1)[0, 0, 1:]), image(8, 10)
    graph_module = capture(model, (x,)).graph_module
    lower_all(graph_module)
    assert left(graph_module) == []
    require_equal(model, graph_module, x)
