"""ONNX files that packages on PyPI ship. One whose package is not installed is skipped, as pytest says."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
import onnx
import pytest

from export import optimize
from export.read_onnx.model import read_model
from export.read_onnx.sites import analyse

ASR = "onnx_asr/preprocessors/data"
OCR, OCR_FILES = "rapidocr-onnxruntime", "rapidocr_onnxruntime/models"


@dataclass(frozen=True)
class Shipped:
    """A file of a package.

    Args:
        maker: the exporter that wrote it, as the file says.
        sites: how many convolutions in it have one channel, and could share.
        unshared: how many convolutions in groups do not share.
        sizes: of its inputs.
    """

    package: str
    file: str
    maker: str
    sites: int
    sizes: dict[str, tuple[int, ...]]
    unshared: int = 0

    @property
    def path(self) -> Path:
        """Where it is installed."""
        try:
            files = metadata.files(self.package) or ()
        except metadata.PackageNotFoundError:
            pytest.skip(f"{self.package} is not installed: pip install --no-deps {self.package}")
        return next(Path(str(f.locate())) for f in files if f.as_posix() == self.file)


SOUND = {"waveforms": (1, 16000), "waveforms_lens": (1,)}
SHIPPED = [
    Shipped(
        "basic-pitch",
        "basic_pitch/saved_models/icassp_2022/nmp.onnx",
        "tf2onnx",
        8,
        {"serving_default_input_2:0": (1, 43844, 1)},
    ),
    Shipped("onnx-asr", f"{ASR}/resample_48_16.onnx", "OnnxScript", 1, SOUND),
    Shipped("onnx-asr", f"{ASR}/resample_16_8.onnx", "OnnxScript", 1, SOUND),
    Shipped("onnx-asr", f"{ASR}/kaldi.onnx", "OnnxScript", 0, SOUND),
    # paddle2onnx names itself in the file of its older release only.
    Shipped(OCR, f"{OCR_FILES}/ch_PP-OCRv4_det_infer.onnx", "", 0, {}, unshared=14),
    Shipped(OCR, f"{OCR_FILES}/ch_ppocr_mobile_v2.0_cls_infer.onnx", "PaddlePaddle", 0, {}, unshared=11),
]


@pytest.mark.parametrize("shipped", SHIPPED, ids=lambda one: Path(one.file).stem)
def test_what_is_found(shipped: Shipped) -> None:
    """Signal front ends convolve one channel. The filters of a trained network differ from channel to
    channel. The others have no convolution that could share."""
    model = read_model(shipped.path)
    assert model.proto.producer_name == shipped.maker
    findings = analyse(model).findings
    assert [finding.shared for finding in findings].count(True) == shipped.sites
    # The numbers were read, wherever the file has them.
    stages = [finding.refusal.stage for finding in findings if finding.refusal]
    assert stages == ["repeats"] * shipped.unshared


@pytest.mark.slow
@pytest.mark.parametrize("shipped", SHIPPED, ids=lambda one: Path(one.file).stem)
def test_what_is_written(shipped: Shipped, tmp_path: Path) -> None:
    """The file is equivalent. Inputs, outputs and its origin stay. Without a site it is a copy."""
    out = tmp_path / "out.onnx"
    given = {name: np.full(sizes, 0.5, np.float32) for name, sizes in shipped.sizes.items()}
    report = optimize(shipped.path, given if shipped.sites else None, out, lowering="static", seconds=0)
    assert report.equivalence.passed
    before, after = (onnx.load(path) for path in (shipped.path, out))
    if not report.rewritten:
        assert out.read_bytes() == shipped.path.read_bytes()
    for part in ("input", "output"):
        assert getattr(before.graph, part) == getattr(after.graph, part)
    for model in (before, after):
        model.ClearField("graph")
    assert before == after
