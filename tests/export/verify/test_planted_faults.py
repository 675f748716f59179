"""The equivalence check finds every planted fault, and gives its place and its numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx.helper as oh
import pytest
from onnx import TensorProto
from small_files import WEIGHT, conv, convolved, identity, one_tap, write

from export.verify.equivalence import check_equivalence

FAULTS: dict[str, Callable[[Path], Path]] = {
    "tap": lambda path: conv(path, one_tap(1e-3)),
    "stride": lambda path: conv(path, strides=[2, 2]),
    "padding": lambda path: conv(path, pads=[1, 1, 1, 1]),
    "scale": lambda path: conv(path, scale=1.0001),
    "nan": lambda path: conv(path, one_tap(np.nan)),
    "inf": lambda path: conv(path, one_tap(np.inf)),
}


@pytest.mark.parametrize("bitwise", [True, False])
@pytest.mark.parametrize("reference", [convolved, None], ids=["float64", "no reference"])
@pytest.mark.parametrize("fault", FAULTS)
def test_every_planted_fault_is_caught(
    fault: str, reference: Callable[..., Any] | None, bitwise: bool, tmp_path: Path
) -> None:
    """It is found with equal bits required or not, and with a float64 reference or without."""
    baseline, faulty = conv(tmp_path / "a.onnx"), FAULTS[fault](tmp_path / "b.onnx")
    result = check_equivalence(baseline, faulty, reference=reference, require_bitwise=bitwise)
    assert not result.passed
    assert not result.bitwise
    assert result.mismatch is not None
    assert result.mismatch.output == "y"
    text = str(result.mismatch)
    if fault in ("stride", "padding"):
        assert "expected float32[1, 3, 6, 6], found float32[1, 3, " in text
    else:
        assert "expected " in text
        assert "a tolerance of " in text
        assert result.mismatch.needed > result.mismatch.allowed


def test_integer_difference(tmp_path: Path) -> None:
    """An integer that differs has no tolerance."""
    a = identity(tmp_path / "a.onnx", TensorProto.INT64, [4], "Add", s=np.array(1, np.int64))
    b = identity(tmp_path / "b.onnx", TensorProto.INT64, [4], "Add", s=np.array(2, np.int64))
    result = check_equivalence(a, b)
    assert not result.passed
    assert result.mismatch is not None
    assert (result.mismatch.needed, result.mismatch.allowed) == (1.0, 0.0)


def test_a_difference_in_the_last_output_is_found(tmp_path: Path) -> None:
    """All outputs are compared, and the mismatch names the one that differs."""
    info = (TensorProto.FLOAT, [4])
    for name, factor in (("a", 2.0), ("b", 2.5)):
        nodes = [oh.make_node("Neg", ["x"], ["p"]), oh.make_node("Mul", ["x", "s"], ["q"])]
        stored = np.array(factor, np.float32)
        write(tmp_path / f"{name}.onnx", nodes, {"x": info}, {"p": info, "q": info}, s=stored)
    result = check_equivalence(tmp_path / "a.onnx", tmp_path / "b.onnx")
    assert result.mismatch is not None
    assert result.mismatch.output == "q"


def test_a_fault_at_another_batch_size_is_found(tmp_path: Path) -> None:
    """The batch size is fixed inside the file. It runs the example and nothing else."""
    a, b = conv(tmp_path / "a.onnx", batch="n"), tmp_path / "b.onnx"
    nodes = [
        oh.make_node("Conv", ["x", "w"], ["c"], group=3, kernel_shape=[3, 3]),
        oh.make_node("Reshape", ["c", "shape"], ["y"]),
    ]
    shape = np.array([2, 3, 6, 6])
    info = {"x": (TensorProto.FLOAT, ["n", 3, 8, 8])}, {"y": (TensorProto.FLOAT, ["n", 3, 6, 6])}
    write(b, nodes, *info, w=WEIGHT, shape=shape)
    result = check_equivalence(a, b, example_inputs=[np.ones((2, 3, 8, 8), np.float32)])
    assert not result.passed
    assert result.mismatch is not None
    assert result.mismatch.case == "batch of 1"
    assert "the original runs, the optimized file does not" in str(result.mismatch)


def shifted(path: Path, taps: int) -> Path:
    """y = conv(x) along the width. Zeros follow the only tap. They change nothing for finite inputs."""
    weight = np.zeros((3, 1, 1, taps), np.float32)
    weight[..., 0] = 2.0
    node = oh.make_node("Conv", ["x", "w"], ["y"], group=3, pads=[0, 0, 0, taps - 1])
    slots = {"x": (TensorProto.FLOAT, [1, 3, 8, 8])}, {"y": (TensorProto.FLOAT, [1, 3, 8, 8])}
    return write(path, [node], *slots, w=weight)


@pytest.mark.parametrize("bitwise", [True, False])
def test_zeros_that_an_infinity_meets_are_found(bitwise: bool, tmp_path: Path) -> None:
    """All finite cases give equal bits. But 0 * Inf is NaN, which only inputs with Inf in them show."""
    a, b = shifted(tmp_path / "a.onnx", 1), shifted(tmp_path / "b.onnx", 2)
    finite = check_equivalence(a, b, require_bitwise=bitwise)
    assert (finite.passed, finite.bitwise, finite.cases) == (True, True, 7)
    result = check_equivalence(a, b, require_bitwise=bitwise, non_finite=True)
    assert not result.passed
    assert result.cases == 8
    assert result.mismatch is not None
    assert result.mismatch.case == "non-finite"
    assert np.isnan(result.mismatch.found)
