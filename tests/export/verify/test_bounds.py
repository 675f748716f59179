"""How much two files may differ where their bits do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import TensorProto
from small_files import WEIGHT, conv, convolved, identity, one_tap

from export.runtime.session import open_session
from export.verify.cases import make_cases
from export.verify.compare_output import ULPS
from export.verify.equivalence import check_equivalence
from export.verify.weight_noise import WeightNoise


def test_one_ulp_fails_bits_and_passes_bounds(tmp_path: Path) -> None:
    """One tap is off by one unit in the last place. The bits differ, but within the error of float32."""
    weight = WEIGHT.copy()
    weight[1, 0, 1, 1] = np.nextafter(weight[1, 0, 1, 1], np.float32(9))
    a, b = conv(tmp_path / "a.onnx"), conv(tmp_path / "b.onnx", weight)
    strict = check_equivalence(a, b, reference=convolved, require_bitwise=True)
    assert not strict.passed
    assert strict.mismatch is not None
    assert strict.mismatch.place[:2] == (0, 1)
    loose = check_equivalence(a, b, reference=convolved)
    assert loose.passed
    assert not loose.bitwise


def test_sign_of_zero_is_a_bit(tmp_path: Path) -> None:
    """-0.0 in place of 0.0 fails if equal bits are required, and only then."""
    a = identity(tmp_path / "a.onnx", TensorProto.FLOAT, [4], "Mul", s=np.array(0, np.float32))
    b = identity(tmp_path / "b.onnx", TensorProto.FLOAT, [4], "Mul", s=np.array(-0.0, np.float32))
    assert not check_equivalence(a, b, require_bitwise=True).passed
    assert check_equivalence(a, b).passed


def test_the_bound_is_what_the_docstring_says(tmp_path: Path) -> None:
    """The bound is the measured spread and ULPS ulp, or as much of it as is needed.

    A sum of nine terms is off by a few units.
    """
    a, b = conv(tmp_path / "a.onnx"), conv(tmp_path / "b.onnx", one_tap(1e-7))
    (output,) = check_equivalence(a, b, reference=convolved).outputs
    inputs = dict(make_cases(open_session(a), None))
    spreads = {case: WeightNoise(a).spread(arrays)[0] for case, arrays in inputs.items()}
    ulps = {case: ULPS * np.spacing(np.abs(convolved(x)[0]).max().astype("f4")) for case, x in inputs.items()}
    assert any(
        output.max_abs_error <= output.bound <= 1.001 * (spreads[case] + ulps[case]) for case in inputs
    )
    assert output.bound > min(ulps.values())
    largest = {case: np.abs(convolved(x)[0]).max() for case, x in inputs.items()}
    assert all(0 < spreads[case] < 64 * 2**-24 * largest[case] for case in inputs)


def test_an_original_far_from_the_truth_allows_nothing_between(tmp_path: Path) -> None:
    """What is as good as the original passes, and what is as good as the truth. Nothing between them does."""
    baseline = conv(tmp_path / "a.onnx", scale=2.0)
    rounded = float(np.nextafter(np.float32(2), np.float32(3)))
    for scale, passes in ((1.0, True), (2.0, True), (rounded, True), (1.0001, False), (1.5, False)):
        optimized = conv(tmp_path / "b.onnx", scale=scale)
        assert check_equivalence(baseline, optimized, reference=convolved).passed == passes
