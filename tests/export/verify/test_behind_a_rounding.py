"""Outputs that jump where a number is rounded or compared: such models keep their convolutions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from gaussian import Blur, lowered, static, window
from torch import Tensor, nn
from torchvision.transforms.v2.functional import gaussian_blur

from export.job import source
from export.verify.truth import Truth
from export.write_onnx import lowered_sites
from fx_passes.errors import NotEquivalentError

pytestmark = pytest.mark.usefixtures("simple_rules")

PICTURE = torch.randint(0, 256, (1, 3, 80, 80), dtype=torch.uint8)


class Levels(nn.Module):
    """A picture of integers, which is blurred and rounded to integers again."""

    def __init__(self, scale: float, kernel: Tensor) -> None:
        super().__init__()
        self.scale, self.kernel = scale, nn.Buffer(kernel.expand(3, 1, -1, -1).clone())

    def forward(self, x: Tensor) -> Tensor:
        return (F.conv2d(x.float(), self.kernel, groups=3) * self.scale).to(torch.int32)


@pytest.mark.slow
def test_integers_behind_a_rounding_are_kept(tmp_path: Path) -> None:
    """The file is written with every convolution as it was, and the report says why."""
    report = static(Levels(1000.0, window()), (PICTURE,), tmp_path / "o.onnx")
    assert lowered(report) == []
    assert report.equivalence.bitwise
    assert "sensitive to rounding" in report.plan.made["kept"]
    assert all("sensitive to rounding" in reason for reason in report.kept.values())


class Picture(nn.Module):
    """The blur of torchvision on a picture of integers: the model itself holds no number."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        return gaussian_blur(x, [self.size, self.size], [1.5, 1.5])


@pytest.mark.slow
@pytest.mark.parametrize(("channels", "size"), [(1, 7), (3, 5), (3, 7)])
def test_blurs_of_torchvision_on_integers_are_kept(channels: int, size: int, tmp_path: Path) -> None:
    """Levels near a tie round either way: no site is wrong, and none is blamed."""
    x = torch.randint(0, 256, (1, channels, 224, 224), dtype=torch.uint8)
    report = static(Picture(size), (x,), tmp_path / "o.onnx")
    assert lowered(report) == []
    assert report.equivalence.bitwise
    assert list(report.kept) == ["conv2d"]
    assert "sensitive to rounding" in report.kept["conv2d"]


@pytest.mark.slow
def test_a_flip_that_one_look_misses_is_no_fault_of_a_site(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the outputs differ, decisions are looked for once more, with other noise."""
    monkeypatch.setattr(Truth, "jump", lambda *_: None)
    report = static(Levels(1000.0, window()), (PICTURE,), tmp_path / "o.onnx")
    assert lowered(report) == []
    assert "sensitive to rounding" in report.plan.made["kept"]


@pytest.mark.slow
def test_integers_of_a_model_without_float64_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The original itself gives others if its weights are off by rounding."""
    monkeypatch.setattr(source, "float64_reference", lambda *_, **__: None)
    monkeypatch.setattr(source, "quick_reference", lambda *_: None)
    report = static(Levels(1000.0, window()), (PICTURE,), tmp_path / "o.onnx")
    assert lowered(report) == []
    assert "sensitive to rounding" in report.plan.made["kept"]


@pytest.mark.slow
def test_what_is_exact_is_lowered_behind_a_rounding(tmp_path: Path) -> None:
    """Integers under a binomial kernel have no rounding errors, so no output jumps."""
    line = torch.tensor([1.0, 4, 6, 4, 1]) / 16
    report = static(Levels(1.0, torch.outer(line, line)), (PICTURE,), tmp_path / "o.onnx")
    assert lowered(report)


@pytest.mark.slow
def test_a_threshold_that_rounding_turns_keeps_everything(tmp_path: Path) -> None:
    """The model in float64 decides. Whether the files agree on this processor does not matter."""

    class Edges(Blur):
        def forward(self, x: Tensor) -> Tensor:
            y = super().forward(x)
            return torch.where(y > y.flatten()[100], 1.0, 0.0)

    report = static(Edges(), (torch.rand(1, 16, 60, 60),), tmp_path / "o.onnx")
    assert lowered(report) == []
    assert "sensitive to rounding" in report.plan.made["kept"]


@pytest.mark.slow
def test_a_threshold_that_no_output_shows_keeps_nothing(tmp_path: Path) -> None:
    """A leaky slope has a comparison in it, but no jump."""

    class Slope(Blur):
        def forward(self, x: Tensor) -> Tensor:
            y = super().forward(x - 0.5)
            return torch.where(y > 0, y, 0.1 * y)

    assert lowered(static(Slope(), (torch.rand(1, 16, 60, 60),), tmp_path / "o.onnx"))


@pytest.mark.slow
def test_a_site_that_is_wrong_is_an_error_behind_integers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what rounding explains is kept. A wrong lowering is blamed on its site, and nothing is written."""
    build = lowered_sites.build  # type: ignore[attr-defined]

    def wrong(*args: Any) -> Any:
        module = build(*args)
        factors = [buffer for buffer in module.buffers() if buffer.is_floating_point()]
        assert factors
        for factor in factors:
            factor.mul_(1.01)
        return module

    monkeypatch.setattr(lowered_sites, "build", wrong)
    with pytest.raises(NotEquivalentError, match="caused by site"):
        static(Levels(1.0, torch.ones(9, 9) / 64), (PICTURE,), tmp_path / "o.onnx")
    assert list(tmp_path.iterdir()) == []
