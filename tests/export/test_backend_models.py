"""The models with which ONNX tests its backends go through unharmed: copied, or verified to be equal."""

from __future__ import annotations

import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx.backend.test.case.node import collect_testcases

from export import optimize
from export.read_onnx.model import OLDEST_OPSET, read_model
from export.read_onnx.sites import analyse
from fx_passes.errors import LoadError

# They convolve; onnxruntime runs all of them but those in integers.
CONVOLUTIONS = [
    "test_basic_conv_with_padding",
    "test_basic_conv_without_padding",
    "test_conv_with_autopad_same",
    "test_conv_with_strides_and_asymmetric_padding",
    "test_conv_with_strides_no_padding",
    "test_conv_with_strides_padding",
    "test_convtranspose",
    "test_convtranspose_1d",
    "test_convtranspose_autopad_same",
    "test_convtranspose_dilations",
    "test_convtranspose_group_2",
    "test_convtranspose_kernel_shape",
    "test_convtranspose_output_shape",
    "test_convtranspose_pad",
    "test_convtranspose_pads",
]


@cache
def cases() -> dict[str, Any]:
    """The test cases of ONNX by name, each with a model and its data."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numbers that overflow are among the data, on purpose
        return {case.name: case for case in collect_testcases(None)}


@pytest.mark.slow
def test_every_model_can_be_searched(tmp_path: Path) -> None:
    """One of an opset that is too old is refused in one line; nothing else is. Nothing is shared in them."""
    path = tmp_path / "model.onnx"
    for case in cases().values():
        path.write_bytes(case.model.SerializeToString())
        versions = [one.version for one in case.model.opset_import if one.domain in ("", "ai.onnx")]
        if any(version < OLDEST_OPSET for version in versions):
            with pytest.raises(LoadError, match=f"opset {OLDEST_OPSET} or newer is needed"):
                read_model(path)
        else:
            assert not any(finding.shared for finding in analyse(read_model(path)).findings), case.name


def with_weights(case: Any) -> tuple[onnx.ModelProto, list[np.ndarray]]:
    """The model of a case with its weights as initializers, and the inputs that are left."""
    inputs, _ = case.data_sets[0]
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    for array in inputs[1:]:
        name = model.graph.input[1].name
        del model.graph.input[1]
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
    return model, [np.asarray(inputs[0])]


@pytest.mark.slow
@pytest.mark.parametrize("lowering", ["expand", "static"])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions_are_equal(name: str, lowering: str, tmp_path: Path) -> None:
    """With constant weights, their convolutions are looked at: the file is a copy, or verified."""
    model, inputs = with_weights(cases()[name])
    before, after = tmp_path / "before.onnx", tmp_path / "after.onnx"
    before.write_bytes(model.SerializeToString())
    report = optimize(before, inputs, after, lowering=lowering, seconds=0)
    assert report.equivalence.passed
    assert report.rewritten or after.read_bytes() == before.read_bytes()
