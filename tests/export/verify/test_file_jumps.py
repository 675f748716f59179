"""ONNX files that decide: if rounding can turn a decision, their convolutions are kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from gaussian import Blur, lowered
from torch import Tensor, nn

from export import optimize
from export.read_onnx.model import read_model
from export.report.result import Report
from export.verify.file_reference import FileReference
from export.write_onnx.exporter import stock_export

pytestmark = pytest.mark.usefixtures("simple_rules")

X = torch.rand(1, 16, 40, 40, generator=torch.Generator().manual_seed(0))


class Steps(Blur):
    """A step where the blurred image is above one of its own numbers, or above a number it never has.

    Args:
        at: the number. None: the blurred number of the first pixel.
        jumps: whether the step shows.
    """

    def __init__(self, at: float | None, *, jumps: bool = True) -> None:
        super().__init__()
        self.at = float(super().forward(X).flatten()[0]) if at is None else at
        self.jumps = jumps

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x) - self.at
        return torch.where(y > 0, y + 1, y) if self.jumps else torch.where(y > 0, y, 0.1 * y)


class Labels(Blur):
    """The channel that is the brightest, for each pixel."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x * 1e-6 + 1.0).argmax(1)


class Sizes(Blur):
    """Computes with a size, and with a number cast to another floating-point type."""

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x).half().float()
        return y * (torch.tensor(y.shape[-1]).float() / 2).floor()


def file_of(model: nn.Module, folder: Path) -> Path:
    return stock_export(model, (X,), folder / "model.onnx")


def decides(model: nn.Module, folder: Path) -> list[bool]:
    return FileReference(read_model(file_of(model, folder))).decides([X.numpy()])


def test_a_threshold_that_rounding_turns(tmp_path: Path) -> None:
    """The image is compared with one of its own numbers."""
    assert decides(Steps(None), tmp_path) == [True]


def test_a_threshold_far_from_every_number(tmp_path: Path) -> None:
    """No rounding error reaches it."""
    assert decides(Steps(2.0), tmp_path) == [False]


def test_a_kink_is_no_jump(tmp_path: Path) -> None:
    """A leaky slope compares, but its output moves as far as its input."""
    assert decides(Steps(None, jumps=False), tmp_path) == [False]


def test_integers_that_rounding_turns(tmp_path: Path) -> None:
    """Of channels that are nearly equal, rounding decides which is the largest."""
    assert decides(Labels(), tmp_path) == [True]


def test_a_file_without_decisions_is_not_evaluated_again(tmp_path: Path) -> None:
    """Two evaluations for each case would be lost."""
    for model in (Blur(), Sizes()):
        reference = FileReference(read_model(file_of(model, tmp_path)))
        assert reference.decides([X.numpy()]) == [False]
        assert reference._jumps is not None
        assert not reference._jumps._noisy


def static(model: nn.Module, folder: Path) -> Report:
    given = file_of(model, folder)
    return optimize(given, [np.asarray(X)], folder / "out.onnx", lowering="static", seconds=0)


@pytest.mark.slow
def test_such_a_file_keeps_its_convolutions(tmp_path: Path) -> None:
    """The report says why."""
    report = static(Steps(None), tmp_path)
    assert lowered(report) == []
    assert "sensitive to rounding" in report.plan.made["kept"]


@pytest.mark.slow
def test_other_files_are_lowered(tmp_path: Path) -> None:
    """Although they compare."""
    assert lowered(static(Steps(2.0), tmp_path))
