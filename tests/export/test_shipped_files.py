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


@dataclass(frozen=True)
class Shipped:
    """A file of a package, how many convolutions of one channel it has, and the sizes of its inputs."""

    package: str
    file: str
    sites: int
    sizes: dict[str, tuple[int, ...]]

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
        8,
        {"serving_default_input_2:0": (1, 43844, 1)},
    ),
    Shipped("onnx-asr", f"{ASR}/resample_48_16.onnx", 1, SOUND),
    Shipped("onnx-asr", f"{ASR}/resample_16_8.onnx", 1, SOUND),
    Shipped("onnx-asr", f"{ASR}/kaldi.onnx", 0, SOUND),
]


@pytest.mark.parametrize("shipped", SHIPPED, ids=lambda one: Path(one.file).stem)
def test_what_is_found(shipped: Shipped) -> None:
    """Signal front ends convolve one channel; the others have no convolution that could share."""
    findings = analyse(read_model(shipped.path)).findings
    assert [finding.shared for finding in findings] == [True] * shipped.sites


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
