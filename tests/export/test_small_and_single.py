"""Open sizes from an example of one item, and images that a model crops to nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from calls import Call
from torch import Tensor, nn
from torch.export import Dim

from export.pipeline import optimize
from export.runtime.session import open_session, run
from export.write_onnx.exporter import stock_export

pytestmark = pytest.mark.usefixtures("simple_rules")

BLUR = torch.full((3, 1, 3, 3), 1 / 9)


class Cropped(nn.Module):
    """A blur whose borders are cut off, as many windowed means are."""

    def __init__(self) -> None:
        super().__init__()
        window = torch.arange(1.0, 12)
        self.window = nn.Buffer(torch.outer(window, window).repeat(3, 1, 1, 1) / 4000)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.window, padding=5, groups=3)[..., 5:-5, 5:-5].abs()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["torch", "bounded", "onnx"])
def test_a_crop_that_leaves_nothing_of_small_images(kind: str, tmp_path: Path) -> None:
    """There the file gives an empty tensor, as the original. A bound says that there are no such images."""
    model, x, smallest = Cropped().eval(), torch.rand(2, 3, 40, 44), 11 if kind == "bounded" else 1
    sizes = {2: Dim("h", min=11), 3: Dim("w", min=11)} if kind == "bounded" else {2: Dim.AUTO, 3: Dim.AUTO}
    given: Any = model
    if kind == "onnx":
        given = stock_export(model, (x,), tmp_path / "in.onnx", dynamic_shapes=(sizes,))
    dynamic = None if kind == "onnx" else (sizes,)
    file = tmp_path / "o.onnx"
    report = optimize(given, (x,), file, lowering="static", dynamic_shapes=dynamic, seconds=0)
    assert report.equivalence.passed
    assert [choice.proposal is not None for choice in report.plan.choices.values()] == [True]
    said = "a Slice behind it stays: it leaves nothing of the smallest inputs"
    outside = [text.startswith(said) for texts in report.outside.values() for text in texts]
    assert outside == ([] if kind == "bounded" else [True])
    session = open_session(file)
    for height, width in ((smallest, 30), (smallest, smallest), (17, 40)):
        x = torch.rand(2, 3, height, width)
        [found] = run(session, [x.numpy()])
        np.testing.assert_allclose(found, model(x).numpy(), atol=1e-5)


def _channels_last(x: Tensor) -> Tensor:
    return F.conv2d(x.permute(0, 3, 1, 2), BLUR, padding=1, groups=3)


def _circular(x: Tensor) -> Tensor:
    return F.conv2d(F.pad(x, [1] * 4, mode="circular"), BLUR, groups=3)


@pytest.mark.parametrize("batch", [Dim("batch", max=7), "batch", Dim.DYNAMIC], ids=["Dim", "name", "dynamic"])
@pytest.mark.parametrize("function", [_channels_last, _circular])
def test_an_open_batch_from_an_example_of_one(
    function: Callable[[Tensor], Tensor], batch: Any, tmp_path: Path
) -> None:
    """How one picture lies in memory is no bound for the batch."""
    model, x = Call(function).eval(), torch.rand(1, 3, 12, 14)
    if function is _channels_last:
        x = x.permute(0, 2, 3, 1).contiguous()
    rows = 1 if function is _channels_last else 2
    shapes = ({0: batch, rows: Dim("h", min=2)},)
    report = optimize(model, (x,), tmp_path / "o.onnx", lowering="static", dynamic_shapes=shapes, seconds=0)
    assert report.equivalence.passed
    assert {sizes[0][0] for sizes in report.equivalence.sizes.values()} == {1, 2, 3}
    assert min(sizes[0][rows] for sizes in report.equivalence.sizes.values()) == 2
    assert not any("batch" in line or "size 0" in line for line in report.sizes)
    session = open_session(tmp_path / "o.onnx")
    for count in (1, 2, 5):
        given = x.repeat(count, 1, 1, 1)
        [found] = run(session, [given.numpy()])
        np.testing.assert_allclose(found, model(given).numpy(), atol=1e-5)
