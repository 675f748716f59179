"""What ``optimize`` writes and what it reports."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from two_blurs import Blurs, run

from export.report.text import summary_lines
from export.runtime import files
from fx_passes.errors import ExportError

pytestmark = pytest.mark.usefixtures("simple_rules")


@pytest.mark.slow
def test_report_and_file(tmp_path: Path) -> None:
    """The report has the JSON of the contract. The file is there, and no other one.

    The model does not change.
    """
    model = Blurs()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    report = run(model, tmp_path / "out.onnx", seconds=0.2)
    assert os.listdir(tmp_path) == ["out.onnx"]
    onnx.checker.check_model(str(tmp_path / "out.onnx"), full_check=True)
    data = report.to_json()
    assert data["schema"] == "fx-passes/optimize/1"
    assert data.keys() >= {"model", "output", "sites", "equivalence", "speed", "size", "environment"}
    assert [site["lowering"] for site in data["sites"]] == ["expand", "expand"]
    assert data["equivalence"]["passed"]
    assert data["equivalence"]["reference"] == "equal bits, errors against float64"
    assert data["speed"]["threads"] == 1
    assert data["environment"]["torch"] == torch.__version__
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


@pytest.mark.slow
def test_nothing_to_share_gives_the_plain_export(tmp_path: Path) -> None:
    """The output is the stock file. The report counts no shared site."""
    model = nn.Sequential(nn.Conv2d(4, 4, 3, groups=4))
    report = run(model, tmp_path / "out.onnx")
    assert report.shared_count == 0
    assert report.baseline_bytes == report.optimized_bytes
    assert report.findings[0].reason is not None
    assert (tmp_path / "out.onnx").stat().st_size == report.optimized_bytes


@pytest.mark.slow
def test_external_data_moves_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large model has its data in a file of its own, named after the output.

    This is so whether a kernel is shared or not. The model loads from where it lies.
    """
    monkeypatch.setattr(files, "LARGE_BYTES", 10)
    for name, first in (("a.onnx", Blurs()), ("b.onnx", nn.Conv2d(4, 4, 3, groups=4))):
        run(nn.Sequential(first, nn.Conv2d(4, 64, 3)), tmp_path / name)
        assert (tmp_path / f"{name}.data").exists()
        onnx.load(tmp_path / name, load_external_data=True)
    assert sorted(os.listdir(tmp_path)) == ["a.onnx", "a.onnx.data", "b.onnx", "b.onnx.data"]


@pytest.mark.slow
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_a_batch_norm_behind_a_shared_convolution(bias: bool, transposed: bool, tmp_path: Path) -> None:
    """The exporter folds the batch norm into the weight, with one scale for each channel.

    So the weight is stored whole where the bits must be equal, and the report says so.
    """
    cls = nn.ConvTranspose2d if transposed else nn.Conv2d
    conv, norm = cls(4, 4, 3, groups=4, bias=bias), nn.BatchNorm2d(4)
    conv.weight.data = conv.weight.data[:1].repeat(4, 1, 1, 1)
    nn.init.uniform_(norm.weight)
    nn.init.uniform_(norm.get_buffer("running_var"))
    report = run(nn.Sequential(conv, norm, nn.ReLU(), Blurs()), tmp_path / "out.onnx")
    assert report.equivalence.bitwise
    first, *rest = report.to_json()["sites"]
    assert first["lowering"] is None
    assert first["scaled"]
    assert first["reason"] == "one kernel, up to a factor for each group"
    assert [site["lowering"] for site in rest] == ["expand", "expand"]


class InARow(nn.Module):
    """A blur, a second blur right behind it, and a third one with a Slice in front."""

    taps_3: Tensor
    taps_5: Tensor
    taps_7: Tensor

    def __init__(self) -> None:
        super().__init__()
        for size in (3, 5, 7):
            setattr(self, f"taps_{size}", nn.Buffer(torch.rand(1, 1, size, size).repeat(3, 1, 1, 1) / size))

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv2d(x, self.taps_3, padding=1, groups=3)
        x = F.conv2d(x, self.taps_5, padding=2, groups=3)
        return F.conv2d(x[..., 1:], self.taps_7, padding=3, groups=3)


@pytest.mark.slow
def test_sites_in_a_row(tmp_path: Path) -> None:
    """The output of one lowered site is the input of the next.

    What is between them belongs to one of them.
    """
    report = run(InARow(), tmp_path / "out.onnx", (torch.rand(1, 3, 32, 64),), lowering="static")
    assert [site["lowering"] for site in report.to_json()["sites"]] == ["polyphase(phases=16)"] * 3


@pytest.mark.slow
def test_candidates_that_cannot_be_timed_are_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The convolutions stay, and the file is written.

    The report says why nothing was lowered.
    """

    def refuses(*arguments: Any) -> Any:
        raise ExportError("planted")

    monkeypatch.setattr("export.tune.fastest.make_candidates", refuses)
    report = run(Blurs(), tmp_path / "out.onnx", lowering="tuned")
    assert report.equivalence.bitwise
    assert [site["lowering"] for site in report.to_json()["sites"]] == ["expand", "expand"]
    assert "nothing was lowered, as the candidates could not be timed: planted" in summary_lines(report)
