"""Blurs of other people with open sizes: files that are right at sizes they were not exported with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import kornia
import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from calls import Call
from click.testing import CliRunner
from torch import Tensor, nn
from torch.export import Dim
from torchvision.transforms import functional as vision
from torchvision.transforms import v2

from export.cli import main
from export.dynamic import dynamic_shapes
from export.pipeline import optimize
from export.runtime.session import open_session, run
from export.verify.sizes import other_sizes
from fx_passes.capture.asked_sizes import OpenSizes
from fx_passes.capture.open_sizes import open_sizes
from fx_passes.errors import CaptureError, ExportError

pytestmark = pytest.mark.usefixtures("simple_rules")

OPEN = {0: Dim("batch"), 2: Dim("h"), 3: Dim("w")}
SIZES = ((2, 5, 7), (1, 4, 4), (3, 13, 8), (1, 64, 97))


class BlurPool(nn.Module):
    """As Composer has it: the filter repeated for however many channels come in."""

    def __init__(self) -> None:
        super().__init__()
        self.blur_filter = nn.Buffer(
            torch.tensor([1.0, 2, 1]).outer(torch.tensor([1.0, 2, 1]))[None, None] / 16
        )

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        return F.conv2d(x, self.blur_filter.repeat(channels, 1, 1, 1), stride=2, padding=1, groups=channels)


MODELS: dict[str, Callable[[], nn.Module]] = {
    "composer": BlurPool,
    "kornia pool": lambda: kornia.filters.BlurPool2D(5, 2),
    "kornia max pool": lambda: kornia.filters.MaxBlurPool2D(3, 2),
    "kornia gauss": lambda: kornia.filters.GaussianBlur2d((7, 7), (1.5, 1.5)),
    "kornia full gauss": lambda: kornia.filters.GaussianBlur2d((7, 7), (1.5, 1.5), separable=False),
    "torchvision": lambda: Call(lambda x: vision.gaussian_blur(x, [7, 7], [1.5, 1.5])),
    "torchvision v2": lambda: Call(lambda x: v2.functional.gaussian_blur(x, [7, 7], [1.5, 1.5])),
}


def signature(file: Path) -> list[list[Any]]:
    graph = onnx.load(file).graph
    values = [*graph.input, *graph.output]
    return [[v.name, *(d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim)] for v in values]


def require_right(file: Path, model: nn.Module, sizes: Any = SIZES) -> None:
    """The file gives what the model gives, and nothing where the model refuses."""
    session = open_session(file)
    for batch, height, width in sizes:
        x = torch.rand(batch, 3, height, width)
        [found] = run(session, [x.numpy()])
        np.testing.assert_allclose(found, model(x).detach().numpy(), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("lowering", ["static", "expand"])
def test_blurs(name: str, lowering: str, tmp_path: Path) -> None:
    """Shared, verified, right at odd, even, prime, smallest and larger sizes; with the stock signature."""
    model, x = MODELS[name]().eval(), torch.rand(1, 3, 24, 28)
    report = optimize(model, (x,), tmp_path / "o.onnx", lowering=lowering, dynamic_shapes=(OPEN,), seconds=0)
    assert report.route == "torch.export"
    assert report.shared_count
    assert report.equivalence.passed
    assert not report.equivalence.notes
    assert any(choice.proposal for choice in report.plan.choices.values()) == (lowering == "static")
    torch.onnx.export(
        model, (x,), tmp_path / "stock.onnx", dynamo=True, verbose=False, dynamic_shapes=(OPEN,)
    )
    assert signature(tmp_path / "o.onnx") == signature(tmp_path / "stock.onnx")
    assert signature(tmp_path / "o.onnx")[0][1:] == ["batch", 3, "h", "w"]
    require_right(tmp_path / "o.onnx", model)
    stock, ours = open_session(tmp_path / "stock.onnx"), open_session(tmp_path / "o.onnx")
    for height, width in ((1, 1), (2, 3), (3, 3), (3, 30)):  # the model may refuse these
        arrays = [np.ones((1, 3, height, width), np.float32)]
        try:
            [expected] = run(stock, arrays)
        except ExportError:
            continue
        [found] = run(ours, arrays)
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.slow
def test_tuned(tmp_path: Path) -> None:
    """Tuning times candidates with open sizes too."""
    model, x = MODELS["kornia full gauss"]().eval(), torch.rand(1, 3, 32, 32)
    report = optimize(model, (x,), tmp_path / "o.onnx", budget=5, dynamic_shapes=(OPEN,), seconds=0)
    assert report.equivalence.passed
    require_right(tmp_path / "o.onnx", model)


@pytest.mark.slow
def test_a_program_keeps_its_bounds(tmp_path: Path) -> None:
    """Cases stay within what an exported program was exported for."""
    sizes = {0: Dim("batch", max=3), 2: Dim("h", min=10, max=30), 3: 2 * Dim("half", min=4, max=20)}
    model = MODELS["kornia gauss"]().eval()
    program = torch.export.export(model, (torch.rand(2, 3, 24, 28),), dynamic_shapes=(sizes,))
    report = optimize(program, None, tmp_path / "o.onnx", lowering="static", dynamic_shapes=None, seconds=0)
    assert report.equivalence.passed
    assert not report.equivalence.notes
    require_right(tmp_path / "o.onnx", model, ((1, 10, 8), (3, 29, 40)))


@pytest.mark.parametrize("size", ["batch", Dim("batch")], ids=str)
def test_a_fixed_batch(size: Any, tmp_path: Path) -> None:
    """Refused before anything is exported: the stock exporter would write a file of a fixed batch."""
    model = Call(lambda x: torch.cat([BlurPool()(x), torch.ones(1, 3, 12, 14)], 1)).eval()
    stages: list[str] = []
    with pytest.raises(CaptureError, match=r"size `batch` of `x` cannot stay open: .*fixes it to 1; leave"):
        optimize(
            model,
            (torch.rand(1, 3, 24, 28),),
            tmp_path / "o.onnx",
            dynamic_shapes=({0: size},),
            progress=stages.append,
        )
    assert "exporting the original" not in stages
    assert not list(tmp_path.iterdir())


SOURCE = """
import torch, torch.nn.functional as F
class Blur(torch.nn.Module):
    def __init__(self, fixed):
        super().__init__()
        self.fixed = fixed
        self.register_buffer("kernel", torch.ones(1, 1, 9, 9) / 81)
    def forward(self, x):
        y = F.conv2d(x, self.kernel.expand(3, 1, -1, -1), groups=3)
        return torch.cat([y, torch.ones(1, 3, 16, 20)], 1) if self.fixed else y
def blur(): return Blur(False), (torch.rand(1, 3, 24, 28),)
def fixed(): return Blur(True), (torch.rand(1, 3, 24, 28),)
"""


@pytest.mark.slow
def test_command_line(tmp_path: Path) -> None:
    """``--dynamic``: exit 0 and a line for each bound; exit 3 and one line where a size is fixed."""
    (tmp_path / "model.py").write_text(SOURCE)
    end = ["-o", str(tmp_path / "o.onnx"), "--lowering", "static", "--seconds", "0"]
    command = ["optimize", f"{tmp_path}/model.py:blur", *end, "--dynamic", "batch", "--dynamic", "x:2,3"]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    for line in ("size `x_2` of `x`: at least 9", "size `x_3` of `x`: at least 9"):
        assert f"{line}, as the model needs it\n" in done.output
    assert signature(tmp_path / "o.onnx")[0][1:] == ["batch", 3, "x_2", "x_3"]
    command = ["optimize", f"{tmp_path}/model.py:fixed", *end, "--dynamic", "batch"]
    refused = CliRunner().invoke(main, command)
    assert refused.exit_code == 3
    assert "fx-passes: size `batch` of `x` cannot stay open" in refused.output
    assert "Invalid ranges" not in refused.output


class Nested(nn.Module):
    def forward(self, images: dict[str, Tensor], scale: float, *more: Tensor) -> Tensor:
        return images["a"] * scale + more[0]


def test_batch_of_nested_inputs() -> None:
    """Every tensor has the open batch, wherever it is among the arguments, and torch takes the form."""
    x = torch.rand(1, 3)
    given = ({"b": x, "a": x.clone()}, 2.0, x.clone())
    shapes = dynamic_shapes(Nested(), given, ("batch",))
    assert shapes is not None
    sizes = open_sizes(Nested(), given, shapes)
    assert sizes is not None
    assert len(sizes.shapes) == 3
    assert len({shape[0] for shape in sizes.shapes}) == 1


class Slot:
    def __init__(self, name: str, shape: list[Any]) -> None:
        self.name, self.shape = name, shape


def shapes_tried(sizes: OpenSizes | None, slots: list[Slot], *example: tuple[int, ...]) -> dict[str, Any]:
    return dict(other_sizes(slots, [np.zeros(shape) for shape in example], sizes))


def test_sizes_tried_are_those_that_the_model_takes() -> None:
    """Bounds, multiples and equal sizes hold in every case; the smallest is among them."""

    class Picky(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            # Both have one height, which is even; x has 5 columns or more.
            return F.max_pool2d(x, (1, 5))[..., :1].unflatten(1, (-1, 2)).sum(2) + y.unflatten(
                1, (-1, 2)
            ).sum(2)

    example = torch.rand(2, 8, 12), torch.rand(2, 8, 1)
    half = Dim("half", max=20)
    shapes = ({1: 2 * half, 2: Dim("w", max=20)}, {1: 2 * half})
    sizes = open_sizes(Picky(), example, shapes)
    slots = [Slot("x", [2, "2*half", "w"]), Slot("y", [2, "2*half", 1])]
    tried = shapes_tried(sizes, slots, (2, 8, 12), (2, 8, 1))
    assert sizes is not None
    height: Any = sizes.shapes[1][1]
    [low] = [bounds[0] for symbol, bounds in (sizes.ranges or {}).items() if symbol in height.free_symbols]
    assert tried["smallest sizes"] == ((2, 2 * low, 5), (2, 2 * low, 1))
    assert len(tried) == 7
    for x, y in tried.values():
        assert x[1] == y[1] <= 40
        assert x[1] % 2 == 0
        assert 5 <= x[2] <= 20
        Picky()(torch.rand(x), torch.rand(y))


def test_sizes_of_files_alone_follow_their_names() -> None:
    """Sizes of one name are one size, wherever they are."""
    slots = [Slot("x", ["n", 3, "m"]), Slot("y", ["m", "n"])]
    for x, y in shapes_tried(None, slots, (2, 3, 5), (5, 2)).values():
        assert (x[0], x[2]) == (y[1], y[0])
