"""The inputs on which two files are compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import TensorProto
from small_files import conv, identity

from export.runtime.session import open_session
from export.verify.cases import make_cases
from export.verify.equivalence import check_equivalence


def test_cases_differ_in_magnitude(tmp_path: Path) -> None:
    """Normal, uniform, large, tiny, impulses, constant: each is what its name says."""
    session = open_session(conv(tmp_path / "a.onnx"))
    cases = {name: arrays[0] for name, arrays in make_cases(session, None)}
    assert np.abs(cases["large"]).max() > 1e4
    assert 0 < np.abs(cases["tiny"]).max() < 1e-18
    assert set(np.unique(cases["impulses"])) == {0.0, 1.0}
    assert np.unique(cases["constant"]).tolist() == [0.5]
    assert 0 <= cases["uniform"].min() < cases["uniform"].max() <= 1


def test_integers_stay_in_the_range_of_the_example(tmp_path: Path) -> None:
    """Integers may be indices: beyond those of the example they may be invalid."""
    session = open_session(identity(tmp_path / "a.onnx", TensorProto.INT64, [100]))
    example = np.arange(100) % 5 + 7
    for _, (array,) in make_cases(session, [example]):
        assert array.min() >= 7
        assert array.max() <= 11


def test_open_batch_is_checked_at_other_sizes(tmp_path: Path) -> None:
    """If the first dimension is open, there is also a batch of 1 and one of 3."""
    session = open_session(conv(tmp_path / "a.onnx", batch="n"))
    cases = dict(make_cases(session, [np.zeros((2, 3, 8, 8), np.float32)]))
    assert cases["batch of 1"][0].shape == (1, 3, 8, 8)
    assert cases["batch of 3"][0].shape == (3, 3, 8, 8)
    assert check_equivalence(tmp_path / "a.onnx", tmp_path / "a.onnx").cases == 9


def test_numbers_that_are_none_are_a_case_of_their_own(tmp_path: Path) -> None:
    """Inf, -Inf and NaN are in one more case, if that is asked for. All other cases stay."""
    session = open_session(conv(tmp_path / "a.onnx"))
    cases = {name: arrays[0] for name, arrays in make_cases(session, None, special=True)}
    assert set(cases) - {name for name, _ in make_cases(session, None)} == {"non-finite"}
    strange = cases["non-finite"][~np.isfinite(cases["non-finite"])]
    assert sorted(map(str, strange)) == ["-inf", "inf", "nan"]
