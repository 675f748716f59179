"""A file in float64: it is what torch gives, and it counts only where it agrees with the file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from export.read_onnx.model import OnnxModel, read_model
from export.verify import file_reference as by_file
from export.verify.cases import Case
from export.verify.file_reference import FileReference, file_reference
from export.verify.quick_reference import quick_reference
from export.verify.reference import Float64Reference, float64_reference
from export.verify.truth import Truth
from export.write_onnx.exporter import stock_export

X = torch.randn(2, 3, 16, 16)


class Of(nn.Module):
    """A function of an image and of a window of three channels."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function
        self.window = nn.Buffer(torch.rand(1, 1, 5, 5).repeat(3, 1, 1, 1) / 9)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, self.window)


def smooth(x: Tensor, window: Tensor) -> Tensor:
    """Without any decision."""
    y = F.conv2d(F.pad(x, (2, 2, 2, 2), mode="reflect"), window, groups=3)
    return torch.sin(F.conv_transpose2d(y, window, stride=2, groups=3)) * 3


def decides(x: Tensor, window: Tensor) -> Tensor:
    """With a threshold."""
    return (F.conv2d(x, window, groups=3) > 0).float()


def exported(model: nn.Module, folder: Path) -> OnnxModel:
    return read_model(stock_export(model, (X,), folder / "model.onnx"))


def by_torch(model: nn.Module) -> Float64Reference:
    reference = float64_reference(model, (X,))
    assert reference is not None
    return reference


def test_it_is_what_torch_gives(tmp_path: Path) -> None:
    """In float64, to the last digits but few; float32 is far from that."""
    model = Of(smooth)
    (found,), (expected,) = (
        FileReference(exported(model, tmp_path))([X.numpy()]),
        by_torch(model)([X.numpy()]),
    )
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13)
    assert np.abs(model(X).numpy() - expected).max() > 1e-9


def test_what_is_not_finite_is_not_known(tmp_path: Path) -> None:
    """Runtimes differ there."""
    x = X.numpy().copy()
    x[0, 0, 0, 0] = np.inf
    (found,) = FileReference(exported(Of(smooth), tmp_path))([x])
    assert np.isnan(found).all()


@pytest.mark.parametrize("fault", ["numbers", "shape", "operator", "time", "size"])
def test_a_reference_that_is_wrong_does_not_count(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It differs from the file, does not run, or takes too long; the note says which."""
    evaluated = FileReference._evaluated

    def faulty(self: FileReference, *given: Any) -> list[np.ndarray]:
        (output,) = evaluated(self, *given)
        if fault == "operator":
            raise NotImplementedError("no such operator")
        return [output[..., 1:] if fault == "shape" else output * (1.001 if fault == "numbers" else 1)]

    monkeypatch.setattr(FileReference, "_evaluated", faulty)
    if fault == "time":
        monkeypatch.setattr(by_file, "SECONDS", 0.0)
    if fault == "size":
        monkeypatch.setattr(by_file, "LARGEST_BYTES", 10)
    notes: list[str] = []
    assert file_reference(exported(Of(smooth), tmp_path), [X.numpy()], notes) is None
    said = {"numbers": "differs", "shape": "shape", "operator": "no such", "time": "takes", "size": "GB"}
    assert said[fault] in notes[0]


def test_the_quick_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file if it agrees; torch if the model decides, or if the file gives other numbers."""
    monkeypatch.setattr("export.verify.quick_reference._RUNS", 1e9)
    model, x = Of(smooth), [X.numpy()]
    file = exported(model, tmp_path)
    assert isinstance(quick_reference(by_torch(model), file, x, []), FileReference)
    with monkeypatch.context() as patch:
        evaluated = FileReference._evaluated
        patch.setattr(FileReference, "_evaluated", lambda *given: [y * 1.0001 for y in evaluated(*given)])
        assert isinstance(quick_reference(by_torch(model), file, x, []), Float64Reference)
    threshold = Of(decides)
    assert isinstance(
        quick_reference(by_torch(threshold), exported(threshold, tmp_path), x, []), Float64Reference
    )


def test_less_noise_than_torch_takes_is_allowed(tmp_path: Path) -> None:
    """The quick reference must not pass what torch would not. More is not drawn than is needed."""
    model, case = Of(smooth), Case("normal", [X.numpy()])
    file = exported(model, tmp_path)
    whole = Truth(file.path, FileReference(file)).spread(case, 0)
    quick = Truth(file.path, FileReference(file, 0.5))
    assert quick.spread(case, 0) == pytest.approx(whole / 2)
    assert quick.spread(case, 0) <= Truth(file.path, by_torch(model)).spread(case, 0)
    early = Truth(file.path, FileReference(file, 0.5))
    assert 1e-12 <= early.spread(case, 0, 1e-12) <= whole / 2
    assert early.spread(case, 0, whole) == pytest.approx(whole / 2)
