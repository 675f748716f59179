"""Open sizes: the bounds that a model needs, refusals, and lowering with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim

import fx_passes
from fx_passes.capture.open_sizes import export_open, open_sizes
from fx_passes.capture.routes import capture
from fx_passes.errors import CaptureError, UsageError


class Model(nn.Module):
    def __init__(self, function: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function
        self.kernel = nn.Buffer(torch.ones(3, 1, 9, 9))

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def blur(m: Any, x: Tensor) -> Tensor:
    return F.conv2d(x, m.kernel, groups=3)


def image(*shape: int) -> Tensor:
    return torch.randint(-4, 5, shape or (2, 3, 30, 40)).float()


BOTH = {2: Dim("h"), 3: Dim("w")}


@pytest.mark.parametrize(
    ("function", "shapes", "notes"),
    [
        (blur, BOTH, ("size `h` of `x`: at least 9", "size `w` of `x`: at least 9")),
        (blur, {2: "h"}, ("size `h` of `x`: at least 9",)),
        (blur, {2: Dim("h", min=4, max=99)}, ("size `h` of `x`: at least 9",)),
        (blur, {2: Dim("h", min=9, max=99)}, ()),
        (blur, {2: Dim("h"), 3: Dim.DYNAMIC}, ("size `h` of `x`: at least 9", "size 3 of `x`: at least 9")),
        (blur, {2: Dim.DYNAMIC}, ("size 2 of `x`: at least 9",)),
        (blur, {0: Dim("b")}, ()),
        (lambda m, x: x * 2 if x.shape[2] < 50 else x, BOTH, ("size `h` of `x`: at most 49",)),
        (lambda m, x: blur(m, x) if x.shape[2] < 50 else x, {2: "h"}, ("size `h` of `x`: from 9 to 49",)),
    ],
)
def test_bounds(function: Callable[..., Tensor], shapes: Any, notes: tuple[str, ...]) -> None:
    """What the model needs beyond what was asked is stated in one line a size; nothing else is."""
    _, sizes = export_open(Model(function).eval(), (image(),), (shapes,))
    assert sizes.notes == tuple(f"{note}, as the model needs it" for note in notes)


def test_sizes_that_are_one() -> None:
    """A named size that must equal another one is that one from then on."""
    model = Model(lambda m, x: x + x.transpose(2, 3))
    _, sizes = export_open(model, (image(2, 3, 30, 30),), (BOTH,))
    assert sizes.notes == ("size `w` of `x`: the same as size `h` of `x`, as the model needs it",)
    assert sizes.dynamic_shapes[0][3].__name__ == "h"
    assert sizes.at(dict.fromkeys(sizes.ranges or {}, 7)) == ((2, 3, 7, 7),)


@pytest.mark.slow
def test_refined_sizes_are_accepted_by_the_stock_exporter() -> None:
    """A named size beside an unnamed one: torch.onnx.export itself gives up on its own suggestion there."""
    model, shapes = Model(blur).eval(), ({2: Dim("h"), 3: Dim.DYNAMIC},)
    sizes = open_sizes(model, (image(),), shapes)
    assert sizes is not None
    program = torch.onnx.export(
        model, (image(),), dynamo=True, verbose=False, dynamic_shapes=sizes.dynamic_shapes
    )
    assert program is not None
    shape = program.model.graph.inputs[0].shape
    assert shape is not None
    assert str(shape[2]) == "h"


@pytest.mark.parametrize("size", [Dim("batch"), "batch", Dim.DYNAMIC], ids=str)
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("way", ["matmul", "cat", "check"])
def test_a_size_that_the_model_fixes(size: Any, batch: int, way: str) -> None:
    """The line says which size of which input, to what, and what to do; both APIs say it."""

    def forward(m: Any, x: Tensor) -> Tensor:
        if way == "matmul":
            return x.reshape(1, -1) @ torch.ones(batch * 3 * 30 * 40, 2)
        if way == "cat":
            return torch.cat([x, torch.ones(batch, 3, 30, 40)], 1)
        if x.shape[0] != batch:
            raise ValueError("another batch")
        return x * 2

    model, x = Model(forward).eval(), image(batch, 3, 30, 40)
    name = "0" if size is Dim.DYNAMIC else "`batch`"
    line = f"size {name} of `x` cannot stay open: with this example the model fixes it to {batch}; leave it"
    for run in (capture, lambda m, i, **k: fx_passes.lower(m, "static", i, **k)):
        with pytest.raises(CaptureError) as error:
            run(model, (x,), dynamic_shapes=({0: size},))
        assert line in str(error.value)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("dim", [-2, 4])
def test_a_dimension_that_is_not_there(dim: int) -> None:
    """torch takes no negative ones either, and keeps their sizes fixed without a word."""
    with pytest.raises(UsageError, match=f"no dimension {dim} in an input of shape .*they are 0 to 3"):
        capture(Model(blur).eval(), (image(),), dynamic_shapes=({dim: Dim("h")},))


def test_auto_leaves_it_to_the_model() -> None:
    """With ``Dim.AUTO`` a size may be fixed; the note says so."""
    model = Model(lambda m, x: torch.cat([x, torch.ones(2, 3, 30, 40)], 1))
    _, sizes = export_open(model, (image(),), ({0: Dim.AUTO},))
    assert sizes.notes == ("size 0 of `x`: 2 and no other, as the model needs it",)


class Nested(nn.Module):
    def forward(self, images: dict[str, Tensor], scale: float, *more: Tensor) -> Tensor:
        return F.max_pool2d(images["a"], 5) * scale + F.max_pool2d(more[0], 5)


@pytest.mark.parametrize("by_name", [False, True])
def test_nested_inputs(by_name: bool) -> None:
    """Dicts, numbers and *args: sizes that are equal have one name, and bounds name the input they are of."""
    h = Dim("h")
    parts: dict[str, Any] = {"images": {"b": None, "a": {2: h}}, "scale": None, "more": ({2: h},)}
    given = parts if by_name else tuple(parts.values())
    inputs = ({"b": image(), "a": image()}, 2.0, image())
    _, sizes = export_open(Nested(), inputs, given)
    assert sizes.notes == ("size `h` of `images_a`: at least 5, as the model needs it",)
    assert len(sizes.shapes) == 3


def test_an_example_of_one_stays_open() -> None:
    """A size of 1 is open as any other, in the graph too."""
    captured = capture(Model(blur).eval(), (image(1, 3, 30, 40),), dynamic_shapes=({0: Dim("b"), 2: "h"},))
    assert captured.route == "torch.export"
    for shape in ((1, 3, 9, 40), (4, 3, 31, 40)):
        x = image(*shape)
        assert torch.equal(captured.graph_module(x), blur(Model(blur), x))


@pytest.mark.parametrize("shapes", [BOTH, {0: "b", 2: "h", 3: "w"}, {0: Dim("b"), 2: Dim.DYNAMIC}], ids=str)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("mode", ["none", "zeros", "reflect"])
def test_lowered_with_open_sizes(shapes: dict[int, Any], stride: int, mode: str) -> None:
    """Equal to the model at every size that it takes, and refused where the model refuses."""

    def function(m: Any, x: Tensor) -> Tensor:
        if mode == "reflect":
            x = F.pad(x, (4, 4, 4, 4), mode="reflect")
        return F.conv2d(x, m.kernel, groups=3, stride=stride, padding=4 if mode == "zeros" else 0)

    model = Model(function).eval()
    lowered = fx_passes.lower(model, "static", (image(1, 3, 30, 40),), dynamic_shapes=(shapes,))
    assert any("lowered" in str(node.target) for node in lowered.graph.nodes)
    for size in (1, 2, 4, 5, 8, 9, 10, 13, 31, 64, 97):
        x = image(size % 3 + 1 if 0 in shapes else 1, 3, size, size + 1 if 3 in shapes else 40)
        try:
            expected = model(x)
        except RuntimeError:
            with pytest.raises((RuntimeError, ValueError, AssertionError)):
                lowered(x)
            continue
        assert torch.equal(lowered(x), expected), x.shape
