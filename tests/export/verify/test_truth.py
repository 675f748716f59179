"""What the optimized file is compared with: the model in float64, or else the original file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from small_files import WEIGHT, conv, convolved, one_tap

from export.verify.equivalence import check_equivalence


def test_reference_that_cannot_run_is_noted_and_replaced(tmp_path: Path) -> None:
    """Without float64, the original file takes its place, and the report says so."""

    def refuses(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        raise TypeError("no float64 here")

    result = check_equivalence(conv(tmp_path / "a.onnx"), tmp_path / "a.onnx", reference=refuses)
    assert result.passed
    assert result.reference == "original file, within what rounding can do"
    assert "cannot be run in float64 (TypeError: no float64 here)" in result.notes[0]


def test_where_the_reference_has_no_number_the_original_counts(tmp_path: Path) -> None:
    """One channel of the reference is NaN. A fault there is found. A difference by rounding is no fault."""

    def without_a_channel(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        (y,) = convolved(arrays)
        y[:, 1] = np.nan
        return [y]

    baseline = conv(tmp_path / "a.onnx")
    for by, passes in ((0.0, True), (1e-7, True), (1e-3, False)):
        result = check_equivalence(
            baseline, conv(tmp_path / "b.onnx", one_tap(by)), reference=without_a_channel
        )
        assert result.passed == passes
    assert result.mismatch is not None
    assert result.mismatch.place[:2] == (0, 1)


def test_a_number_that_the_original_lost_is_noted(tmp_path: Path) -> None:
    """Equal bits pass. A note says that the model has a number where both files have none. No note comes
    twice."""
    weight = np.full_like(WEIGHT, np.inf)
    files = [conv(tmp_path / name, weight) for name in ("a.onnx", "b.onnx")]
    result = check_equivalence(*files, reference=convolved)
    assert result.passed
    assert "output `y` of the stock export is " in result.notes[0]
    assert ", where the model in float64 gives " in result.notes[0]
    assert len(set(result.notes)) == len(result.notes)
    assert check_equivalence(files[0], files[1]).notes == ()


def test_what_is_expected_is_what_was_compared_with(tmp_path: Path) -> None:
    """It is the number of the reference. Without a reference, it is that of the original."""
    baseline, optimized = conv(tmp_path / "a.onnx", scale=2.0), conv(tmp_path / "b.onnx", scale=1.5)
    for reference, ratio in ((convolved, 1.5), (None, 0.75)):
        mismatch = check_equivalence(baseline, optimized, reference=reference).mismatch
        assert mismatch is not None
        assert mismatch.found / mismatch.expected == pytest.approx(ratio, rel=1e-5)
