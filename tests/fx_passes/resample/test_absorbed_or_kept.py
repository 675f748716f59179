"""Whether a site takes something in or leaves it, the model computes what it did."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from surroundings import Function, Model, image, lower_all
from torch import Tensor

from fx_passes.capture.routes import capture
from fx_passes.resample.lowerable import lowerable_sites


def buffer_written(m: Model, x: Tensor) -> Tensor:
    y = F.pad(m.state, (1, 1))
    m.state.add_(1)
    return m.conv(y) + x.sum()


# By name: what the model does, and its input.
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
    """Whether it is taken in or stays, the model computes what it did."""
    function, x = FAULTS[name]
    model = Model(function)
    graph_module = capture(model, (x,)).graph_module
    expected = copy.deepcopy(model)(x)
    if "channels last" in name:
        assert "not laid out" in str(lowerable_sites(graph_module)[1])
        return
    lower_all(graph_module)
    assert torch.equal(graph_module(x), expected)
