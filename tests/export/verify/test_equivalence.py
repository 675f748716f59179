"""The equivalence check passes files that are equal, and refuses files that it cannot compare."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

import pytest
from onnx import TensorProto
from small_files import conv, convolved, identity

from export.runtime.session import open_session
from export.verify import equivalence
from export.verify.equivalence import check_equivalence
from fx_passes.errors import ExportError, NotEquivalentError, UsageError


def test_equal_files_pass_with_equal_bits(tmp_path: Path) -> None:
    """Seven cases run at two levels. The errors against float64 are those of float32."""
    a, b = conv(tmp_path / "a.onnx"), conv(tmp_path / "b.onnx")
    result = check_equivalence(a, b, reference=convolved, require_bitwise=True)
    assert result.passed
    assert result.bitwise
    assert result.cases == 7
    (output,) = result.outputs
    assert 0 < output.max_abs_error == output.baseline_error <= output.bound


@pytest.mark.parametrize(
    "kind", [TensorProto.INT64, TensorProto.BOOL, TensorProto.DOUBLE, TensorProto.FLOAT16]
)
def test_other_types(kind: int, tmp_path: Path) -> None:
    """Inputs of integers, flags, doubles and halves are made. The outputs are compared."""
    a, b = (identity(tmp_path / f"{name}.onnx", kind, [2, 3]) for name in "ab")
    result = check_equivalence(a, b, require_bitwise=True)
    assert result.passed
    assert result.cases == 7


def test_scalar_and_empty_outputs(tmp_path: Path) -> None:
    """An output without dimensions and one without elements are compared like any other."""
    for shape in ([], [0, 3]):
        a, b = (identity(tmp_path / f"{name}.onnx", TensorProto.FLOAT, shape) for name in "ab")
        assert check_equivalence(a, b, require_bitwise=True).passed


def test_files_that_do_not_fit_each_other(tmp_path: Path) -> None:
    """The files have other inputs, or the number of example inputs is wrong: both are errors."""
    a = conv(tmp_path / "a.onnx")
    b = identity(tmp_path / "b.onnx", TensorProto.FLOAT16, [4])
    with pytest.raises(NotEquivalentError, match="the files have different inputs"):
        check_equivalence(a, b)
    with pytest.raises(UsageError, match=r"the model takes 1 inputs \(x\), got 0"):
        check_equivalence(a, a, example_inputs=[])


def test_something_that_is_no_model(tmp_path: Path) -> None:
    """One line names the file."""
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"not a model")
    with pytest.raises(ExportError, match=r"onnxruntime does not accept .*bad.onnx: "):
        check_equivalence(bad, bad)


def test_one_session_is_open_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each session holds the weights. What it gave, such as its inputs and outputs, does not keep it open."""
    opened: list[weakref.ref[Any]] = []

    def opening(*arguments: Any, **options: Any) -> Any:
        assert [ref for ref in opened if ref() is not None] == []
        session = open_session(*arguments, **options)
        opened.append(weakref.ref(session._sess))
        return session

    monkeypatch.setattr(equivalence, "open_session", opening)
    a, b = conv(tmp_path / "a.onnx"), conv(tmp_path / "b.onnx")
    assert check_equivalence(a, b).passed
    assert len(opened) == 4


def test_json_has_the_contract(tmp_path: Path) -> None:
    """The names are those of the JSON contract."""
    data = check_equivalence(conv(tmp_path / "a.onnx"), tmp_path / "a.onnx").to_json()
    assert {"passed", "cases", "outputs"} <= data.keys()
    assert data["outputs"][0].keys() == {"name", "max_abs_error", "baseline_error", "bound"}
