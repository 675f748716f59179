"""An ONNX file of more weights than one protobuf message holds: what it takes of memory to rewrite it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from blur_files import BLUR, X, blur, image, message, node, write
from onnx import TensorProto
from onnx.external_data_helper import set_external_data
from peak_memory import peaks

from export.runtime.files import size_of
from export.runtime.session import Array, open_session, run

ROWS, COLUMNS, TILE = 3 * 64 * 64, 48_000, 64
# The rows of the large weight are these, again and again.
ROWS_OF_TILE = np.random.default_rng(1).standard_normal((TILE, COLUMNS)).astype(np.float32)
IMPORTS = "import sys; import export, export.cli, onnxruntime, torch"
OPTIMIZE = """
report = export.optimize(sys.argv[1], None, sys.argv[2], lowering="static", seconds=0)
assert report.equivalence.passed
assert [choice.proposal is not None for choice in report.plan.choices.values()] == [True]
"""
FIND = """
try: export.cli.main(["find", sys.argv[1], "--json", sys.argv[2]])
except SystemExit as end: assert not end.code, end.code
"""


@pytest.fixture
def large(tmp_path: Path) -> Iterator[Path]:
    """A blur of the image beside its product with a matrix of 2.4 GB. Its files, and those that a test
    writes, are removed."""
    path = tmp_path / "in.onnx"
    with (tmp_path / "w.bin").open("wb") as file:
        for _ in range(ROWS // TILE):
            ROWS_OF_TILE.tofile(file)
    rest = [node("Flatten", ["x"], ["row"]), node("MatMul", ["row", "large"], ["product"])]
    model = message([blur(), *rest], outputs=[image("y"), image("product", (1, COLUMNS))])
    weight = TensorProto(name="large", data_type=TensorProto.FLOAT, dims=[ROWS, COLUMNS], raw_data=b"")
    set_external_data(weight, "w.bin", 0, 4 * ROWS * COLUMNS)
    weight.ClearField("raw_data")
    model.graph.initializer.append(weight)
    yield write(path, model)
    for left in [*tmp_path.rglob("*.onnx"), *tmp_path.rglob("*.bin")]:
        left.unlink()


def expected(x: Array) -> tuple[Array, Array]:
    """The outputs in float64."""
    given = torch.from_numpy(x).double()
    blurred = torch.nn.functional.conv2d(given, torch.from_numpy(BLUR).double(), padding=5, groups=3)
    sums = x.astype(np.float64).reshape(-1, TILE).sum(0)
    return blurred.numpy(), sums[None] @ ROWS_OF_TILE


@pytest.mark.slow
def test_it_is_rewritten(large: Path, tmp_path: Path) -> None:
    """The weights are in memory once: the peak is at most one and a half times the file. Pages of the mapped
    file count. What the imports take does not count: it is the same for a small file."""
    out = tmp_path / "elsewhere" / "out.onnx"
    out.parent.mkdir()
    before, most = peaks(IMPORTS, OPTIMIZE, arguments=(str(large), str(out)))
    size = size_of(large)
    assert size > onnx.checker.MAXIMUM_PROTOBUF
    assert most - before <= 1.5 * size
    assert sorted(os.listdir(out.parent)) == ["out.onnx", "w.bin"]
    onnx.checker.check_model(str(out), full_check=True)
    for found, right in zip(run(open_session(out), [X]), expected(X), strict=True):
        np.testing.assert_allclose(found, right, rtol=0, atol=1e-5 * float(np.abs(right).max()))


@pytest.mark.slow
def test_it_is_searched(large: Path, tmp_path: Path) -> None:
    """``find`` does not read the large weight: above the imports, it takes a tenth of the file at most."""
    before, most = peaks(IMPORTS, FIND, arguments=(str(large), str(tmp_path / "found.json")))
    assert most - before <= 0.1 * size_of(large)
    [found] = json.loads((tmp_path / "found.json").read_text())["sites"]
    assert found["shared"]
