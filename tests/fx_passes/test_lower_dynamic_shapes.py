"""``lower(model, "static", inputs, dynamic_shapes=...)``: every form that torch.export takes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim, ShapesCollection
from two_sites import lowerings

from fx_passes import lower
from fx_passes.errors import FxPassesError

pytestmark = pytest.mark.usefixtures("simple_rules")
H, W = Dim("h", min=9), Dim("w", min=9)


class Nested(nn.Module):
    """A dictionary of a tensor and of a list, a tensor, and a number with a default."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Buffer(torch.rand(1, 1, 9, 9).repeat(3, 1, 1, 1))

    def forward(self, images: dict[str, Any], shift: Tensor, scale: int = 1) -> Tensor:
        return F.conv2d(images["a"], self.weight, groups=3) * scale + images["b"][0] + shift


def inputs(height: int, width: int) -> tuple[dict[str, Any], Tensor]:
    """Inputs of the model."""
    return {"a": torch.rand(2, 3, height, width), "b": [torch.rand(1, 1, 1)]}, torch.rand(1)


def collection(example: tuple[dict[str, Any], Tensor]) -> ShapesCollection:
    """Open sizes by tensor."""
    shapes = ShapesCollection()
    shapes[example[0]["a"]] = {2: H, 3: W}
    return shapes


@pytest.mark.parametrize(
    "shapes",
    [
        ({"a": {2: H, 3: W}, "b": [None]}, None),
        [{"a": {2: H, 3: W}, "b": [None]}, None],
        {"images": {"a": {2: H, 3: W}, "b": [None]}, "shift": None},
        ({"a": [None, None, H, W], "b": [{}]}, {}),
        ({"a": {2: Dim.AUTO, 3: Dim.DYNAMIC}, "b": [None]}, None),
        ({"a": {2: "h", 3: "w"}, "b": [None]}, None),
        collection,
    ],
    ids=["tuple", "list", "by name", "lists of sizes", "hints", "names", "collection"],
)
def test_forms(shapes: Any) -> None:
    """The lowered model is right at every size that the exported model takes, and at no other."""
    model, example = Nested().eval(), inputs(40, 48)
    lowered = lower(model, "static", example, dynamic_shapes=shapes(example) if callable(shapes) else shapes)
    assert lowerings(lowered)
    for height, width in ((9, 9), (9, 10), (41, 33), (64, 128), (10, 48)):
        other = inputs(height, width)
        torch.testing.assert_close(lowered(*other), model(*other), rtol=0, atol=1e-4)
    for height, width in ((8, 9), (9, 0)):
        with pytest.raises(ValueError, match=r"is [80]; the graph was captured for 9 to any size"):
            lowered(*inputs(height, width))


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        (({"a": {2: H}, "b": [None]},), "one entry"),
        ({"image": {"a": {2: H}, "b": [None]}, "shift": None}, "images, shift"),
        (({"a": {7: H}, "b": [None]}, None), "no dimension 7"),
        (({"a": {"h": H}, "b": [None]}, None), "no dimension h"),
        (([{2: H}, None], None), "each of a, b"),
        (({"a": {2: 3.5}, "b": [None]}, None), "3.5"),
        (({"a": {2: Dim("h", min=50)}, "b": [None]}, None), "50 to any, but it is 40"),
        (({"a": {2: H, 3: H}, "b": [None]}, None), "not equal"),
        (({"a": {1: Dim("c")}, "b": [None]}, None), "fixes it to 3"),
        ("h", "one entry"),
    ],
)
def test_wrong_shapes(shapes: Any, words: str) -> None:
    """Each is refused in one line, which says what is wrong."""
    with pytest.raises(FxPassesError, match=words) as caught:
        lower(Nested().eval(), "static", inputs(40, 48), dynamic_shapes=shapes)
    assert "\n" not in str(caught.value)
