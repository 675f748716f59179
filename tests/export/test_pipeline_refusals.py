"""What ``optimize`` refuses: arguments, inputs, outputs, and models that draw random numbers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from torch import nn
from two_blurs import Blurs, X, run

from export import optimize
from fx_passes.errors import ExportError, UsageError

pytestmark = pytest.mark.usefixtures("simple_rules")


def test_wrong_arguments(tmp_path: Path) -> None:
    """Each is refused before any work is done."""
    with pytest.raises(UsageError, match="lowering must be one of tuned, static, expand, got 'fast'"):
        optimize(Blurs(), (X,), tmp_path / "out.onnx", lowering="fast")
    with pytest.raises(UsageError, match="example inputs are needed"):
        optimize(Blurs(), None, tmp_path / "out.onnx")
    with pytest.raises(ExportError, match=r"cannot write .*out.onnx: .* is not a folder"):
        optimize(Blurs(), (X,), tmp_path / "missing" / "out.onnx")


def test_inputs_that_numpy_does_not_have(tmp_path: Path) -> None:
    """numpy has no bfloat16. Such inputs are refused in one line."""
    with pytest.raises(UsageError, match="example inputs cannot be passed to onnxruntime"):
        run(nn.ReLU(), tmp_path / "out.onnx", (X.bfloat16(),))


def test_output_that_is_a_folder(tmp_path: Path) -> None:
    """Nothing is moved into the folder."""
    with pytest.raises(ExportError, match="it is a folder"):
        run(Blurs(), tmp_path)
    assert os.listdir(tmp_path) == []


@pytest.mark.slow
def test_a_model_that_draws_random_numbers(tmp_path: Path) -> None:
    """Dropout in training mode gives another output each time.

    Nothing can be compared with it, and the message says why.
    """
    model = nn.Sequential(Blurs(), nn.Dropout()).train()
    message = r"the original gives another output `.*` each time .*; does it draw random numbers\?$"
    with pytest.raises(ExportError, match=message):
        optimize(model, (X,), tmp_path / "out.onnx", seconds=0, lowering="expand")
    assert os.listdir(tmp_path) == []
