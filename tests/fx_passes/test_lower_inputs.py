"""A lowered model takes the inputs that the model takes."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from integers import KERNEL
from torch import Tensor, nn
from torch.export import Dim
from traced import with_sizes
from two_sites import Model, depthwise, image, lowerings

from fx_passes.lower import lower

pytestmark = pytest.mark.usefixtures("simple_rules")


class Arguments(nn.Module):
    """A model with a dictionary of inputs, an input with a default, and an input that is no tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Buffer(KERNEL.repeat(4, 1, 1, 1))

    def forward(self, images: dict[str, Tensor], shift: Tensor, scale: int = 1) -> Tensor:
        return F.conv2d(images["a"], self.weight, groups=4) * scale + images["b"] + shift


def test_inputs_of_all_kinds() -> None:
    """The lowered model takes tensors in a dictionary, and a number."""
    model = Arguments()
    inputs = {"b": image(4, 1, 1), "a": image()}, image(4, 1, 1)
    lowered = lower(model, "static", inputs)
    assert lowerings(lowered) == ["polyphase"]
    assert torch.equal(lowered(*inputs), model(*inputs))


def test_inputs_by_name() -> None:
    """Inputs may come by name and in any order, as torch's own exported modules take them."""
    model, images, shift = Arguments(), {"b": image(4, 1, 1), "a": image()}, image(4, 1, 1)
    lowered = lower(model, "static", (images, shift))
    assert torch.equal(lowered(shift=shift, images=images), model(images, shift))


def test_unbatched() -> None:
    """torch's convolutions also take (C, H, W). Sizes are fixed, or the height is open."""
    model, x = Model(lambda m, x: m.two(F.pad(x, (1, 0)), bias=m.bias)), image(4, 50, 40)
    lowered = lower(model, "static", (x,))
    assert lowerings(lowered) == ["polyphase"]
    assert torch.equal(lowered(x), model(x))
    program = torch.export.export(model, (x,), dynamic_shapes={"x": {1: Dim("height", min=5, max=99)}})
    lowered = lower(program)
    for height in (50, 7):
        x = image(4, height, 40)
        assert torch.equal(lowered(x), model(x))


def test_example_inputs_of_a_graph_module() -> None:
    """A symbolic trace knows no shapes. The example inputs give them."""
    model, x = nn.Sequential(depthwise()), image()
    assert lowerings(lower(torch.fx.symbolic_trace(model), "static", (x,))) == ["polyphase"]


@pytest.mark.parametrize("how", ["deepcopy", "with sizes"])
def test_another_size_of_as_many_elements(how: str) -> None:
    """Height and width are exchanged. The lowered model raises an error or computes what the model does."""
    model, x, other = Model(lambda m, x: m.one(x, padding=1)), image(2, 4, 26, 40), image(2, 4, 40, 26)
    lowered = (
        lower(with_sizes(model, x)) if how == "with sizes" else copy.deepcopy(lower(model, "static", (x,)))
    )
    assert lowerings(lowered) == ["polyphase"]
    try:
        found = lowered(other)
    except (RuntimeError, ValueError):
        return
    assert found.shape == model(other).shape
    assert torch.equal(found, model(other))
