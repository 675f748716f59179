"""Names and bounds of open sizes: from the command line to the written file, and to the sizes tried."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from command_line import run
from torch import Tensor, nn
from torch.export import Dim

import fx_passes
from export import to_onnx
from export.dynamic import dynamic_shapes
from export.verify.sizes import other_sizes
from fx_passes.capture.open_sizes import open_sizes
from fx_passes.errors import CaptureError

SOURCE = """
import torch, torch.nn.functional as F
class Blur(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("kernel", torch.ones(1, 1, 9, 9) / 81)
    def forward(self, x, y):
        return F.conv2d(x, self.kernel.expand(3, 1, -1, -1), groups=3), y * 2
def blur(): return Blur(), (torch.rand(1, 3, 24, 28), torch.rand(1, 24))
"""


class Blur(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Buffer(torch.ones(1, 1, 9, 9) / 81)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.kernel.expand(3, 1, -1, -1), groups=3)


X = torch.rand(1, 3, 24, 28)


class Slot:
    def __init__(self, name: str, shape: list[Any]) -> None:
        self.name, self.shape = name, shape


def shapes_of(file: Path) -> dict[str, list[Any]]:
    """What a file says of its inputs and outputs."""
    graph = onnx.load(file).graph
    return {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }


@pytest.mark.slow
def test_the_file_has_the_names(tmp_path: Path) -> None:
    """At inputs exactly as they were given; sizes of outputs follow from them.

    What the model needs beyond the bounds is one line.
    """
    (tmp_path / "model.py").write_text(SOURCE)
    output = tmp_path / "o.onnx"
    specs = ("--dynamic", "batch=N[1..16]", "--dynamic", "x:2=h[1..48],3=S[20..]", "--dynamic", "y:1=h")
    command = ("optimize", f"{tmp_path}/model.py:blur", "-o", output, "--lowering", "static", "--seconds", 0)
    done = run(*command, *specs)
    assert done.exit_code == 0, done.output
    assert "size `h` of `x`: at least 9, as the model needs it\n" in done.stdout
    assert "size `N`" not in done.stdout
    assert "size `S`" not in done.stdout
    assert list(shapes_of(output).values()) == [
        ["N", 3, "h", "S"],
        ["N", "h"],
        ["N", 3, "h - 8", "S - 8"],
        ["N", "h"],
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("--dynamic", "x:2=h[32..]"),
            "`h` must be at least 32, but dimension 2 of 'x' is 24 in the example",
        ),
    ],
)
def test_usage_errors(arguments: tuple[str, ...], said: str, tmp_path: Path) -> None:
    """The exit code is 2, one line says what is wrong, and no file is written."""
    (tmp_path / "model.py").write_text(SOURCE)
    result = run("optimize", f"{tmp_path}/model.py:blur", "-o", tmp_path / "o.onnx", *arguments)
    assert result.exit_code == 2, result.output
    assert said in result.stderr.splitlines()[-1]
    assert not (tmp_path / "o.onnx").exists()


def test_an_onnx_file_states_its_open_sizes(tmp_path: Path) -> None:
    """``--dynamic`` is refused with any spelling."""
    file = to_onnx(Blur().eval(), (X,), tmp_path / "model.onnx")
    result = run("optimize", file, "-o", tmp_path / "o.onnx", "--dynamic", "x:2=h[9..64]")
    assert result.exit_code == 2
    assert "an ONNX file states which of its sizes are open" in result.stderr


@pytest.mark.parametrize(
    ("specs", "bounds"),
    [
        (("batch=n[1..2]", "x:2=h[20..26],3=w"), ((1, 2), (20, 26), (9, 10**6))),
        (("batch[..4]", "x:2=h[1..30],3[12..40]"), ((1, 4), (9, 30), (12, 40))),
    ],
)
def test_nothing_outside_the_bounds_is_tried(
    specs: tuple[str, ...], bounds: tuple[tuple[int, int], ...]
) -> None:
    """The comparison of two files keeps to the bounds of the caller and those of the model."""
    sizes = open_sizes(Blur(), (X,), dynamic_shapes(Blur(), (X,), specs))
    assert sizes is not None
    assert {(low, high or 10**6) for low, high in (sizes.ranges or {}).values()} == set(bounds)
    tried = dict(other_sizes([Slot("x", ["n", 3, "h", "w"])], [np.zeros(X.shape)], sizes))
    assert "smallest sizes" in tried
    assert len(tried) > 2
    for [shape] in tried.values():
        for dim, (low, high) in zip((0, 2, 3), bounds, strict=True):
            assert low <= shape[dim] <= high


def test_bounds_without_a_size_that_the_model_takes() -> None:
    """The model needs 9, and no more than 9 is allowed: refused, as the size would not be open."""
    x = torch.rand(1, 3, 9, 28)
    with pytest.raises(CaptureError, match=r"size `h` of `x` cannot stay open: .* fixes it to 9"):
        open_sizes(Blur(), (x,), dynamic_shapes(Blur(), (x,), ("x:2=h[1..9]",)))


def test_the_exporter_takes_them(tmp_path: Path) -> None:
    """``to_onnx`` writes the names that ``Dim`` objects have."""
    named = ({2: Dim("rows", min=9, max=64), 3: Dim("columns", min=10)},)
    shared = fx_passes.share_kernels(Blur().eval(), (X,))
    file = to_onnx(shared, (X,), tmp_path / "o.onnx", dynamic_shapes=named)
    assert list(shapes_of(file).values()) == [
        [1, 3, "rows", "columns"],
        [1, 3, "rows - 8", "columns - 8"],
    ]


def test_lower_takes_them() -> None:
    """A lowered graph is right within the bounds, and refuses what lies outside."""
    named = ({2: Dim("rows", min=12, max=64), 3: Dim("columns", min=9)},)
    lowered = fx_passes.lower(Blur().eval(), "static", (X,), dynamic_shapes=named)
    for rows, columns in ((12, 9), (64, 33)):
        x = torch.rand(1, 3, rows, columns)
        torch.testing.assert_close(lowered(x), Blur()(x))
    for rows in (11, 65):
        with pytest.raises(ValueError, match=f"is {rows}; the graph was captured for 12 to 64"):
            lowered(torch.rand(1, 3, rows, 20))
