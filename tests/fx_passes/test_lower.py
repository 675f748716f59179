"""``lower()`` takes every kind of model, and the lowered model computes the same numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from traced import with_sizes
from two_sites import Model, both, image, lowerings

from fx_passes.errors import CaptureError
from fx_passes.lower import lower

pytestmark = pytest.mark.usefixtures("simple_rules")
ROUTES: dict[str, Callable[[nn.Module, Tensor], Any]] = {
    "nn.Module": lambda model, x: model,
    "exported program": lambda model, x: torch.export.export(model, (x,)),
    "graph module": lambda model, x: torch.export.export(model, (x,)).module(),
    "graph module with sizes": with_sizes,
}


@pytest.mark.parametrize("route", ROUTES)
def test_every_kind_of_model(route: str) -> None:
    """The rules lower both sites, whatever holds the model. The numbers are the same."""
    model, x = Model(both), image()
    lowered = lower(ROUTES[route](model, x), "static", (x,))
    assert lowerings(lowered) == ["polyphase"] * 2
    assert torch.equal(lowered(x), model(x))
    assert not any("conv" in str(node.target) for node in lowered.graph.nodes)


def test_a_model_with_nothing_to_lower() -> None:
    """A model without a shared convolution comes back as its graph."""
    model, x = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()), image(1, 3, 16, 16)
    lowered = lower(model, "static", (x,))
    assert lowerings(lowered) == []
    assert torch.equal(lowered(x), model(x))


def test_exactness_holds_the_rules_back() -> None:
    """Nothing bitwise is proposed, so nothing is lowered. ``reordered`` does not allow phases."""
    model, x = Model(both), image()
    assert lowerings(lower(model, "static", (x,), exactness="bitwise")) == []
    assert "polyphase" not in lowerings(lower(model, "static", (x,), exactness="reordered"))
    assert torch.equal(lower(model, "static", (x,), exactness="bitwise")(x), model(x))


def test_what_cannot_be_captured() -> None:
    """The caller gets the error of the capture."""

    def branches(m: Model, x: Tensor) -> Tensor:
        return m.one(x) if x.sum() > 0 else x

    with pytest.raises(CaptureError, match="could not be captured"):
        lower(Model(branches), "static", (image(),))


def test_a_buffer_that_is_filled_anew_for_each_frame() -> None:
    """The model writes into a tensor between two convolutions that read it. Each reads the right values."""

    class Frames(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kernel = nn.Buffer(torch.rand(1, 1, 5, 5).repeat(3, 1, 1, 1))

        def forward(self, frames: Tensor) -> Tensor:
            n, count, c, h, w = frames.shape
            padded = frames.new_zeros(n, c, h + 4, w + 4)
            found = []
            for index in range(count):
                padded[:, :, 2:-2, 2:-2] = frames[:, index]
                found.append(F.conv2d(padded, self.kernel, groups=c))
            return torch.stack(found, 1)

    model, frames = Frames(), torch.rand(1, 3, 3, 40, 40)
    torch.testing.assert_close(lower(model, "static", (frames,))(frames), model(frames))
