"""What a job does where a stage says no: the original first, and a tuned file that is slower."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from export import optimize
from export.pipeline import optimize_model
from export.report.result import Report
from export.report.text import stage_lines, summary_lines
from export.runtime import files
from export.speed import Timing, time_files
from export.stages import Stages
from export.tune.candidates import Candidates
from export.tune.options import Options
from export.tune.stopwatch import Stopwatch
from fx_passes.errors import ExportError
from fx_passes.plan import Plan
from fx_passes.timing.blocks import Ratio
from fx_passes.timing.claims import Block

X = torch.rand(1, 3, 32, 48)


def blur() -> nn.Module:
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 3, 5, padding=2, groups=3)
    conv.weight.data = conv.weight.data[:1].repeat(3, 1, 1, 1)
    return nn.Sequential(conv).eval()


def timing(baseline: float, optimized: float) -> Timing:
    return Timing((Block((baseline,), (optimized,), (baseline,)),) * 4)


class Desk:
    """Lets polyphase win while tuning, and measures the result as told, one ratio a measurement."""

    def __init__(self, *measured: float) -> None:
        self.measured = iter(measured)
        self.tuned_on: list[tuple[int, ...]] = []

    def optimize(
        self, model: nn.Module, x: Tensor, path: Path, plan: Plan | None = None, **more: Any
    ) -> Report:
        stopwatch = Stopwatch(self.alone, lambda files, *_: [Ratio(2.0, (2.0, 2.0))], self.speed)
        options = Options(plan=plan, seconds=1, stopwatch=stopwatch)
        return optimize_model(model, (x,), path, options, Stages(), **more)

    def alone(self, candidates: Candidates, *_: Any) -> dict[str, float]:
        return {name: 9.0 if name == "expand" else 3.0 for name in candidates.names}

    def speed(self, first: Path, second: Path, inputs: list[np.ndarray], *_: Any, **__: Any) -> Timing:
        if second.parent.name == "optimized":  # the result
            return timing(1.0, 1.0 / next(self.measured))
        self.tuned_on += [array.shape for array in inputs]
        return timing(2.0, 1.0)


def lowered(report: Report) -> list[str]:
    return [choice.proposal.lowering for choice in report.plan.choices.values() if choice.proposal]


@pytest.mark.slow
def test_a_tuned_file_that_is_slower_is_not_written(tmp_path: Path) -> None:
    """Every convolution is kept, verified and measured; the report says so, by site and in its summary."""
    report = Desk(0.8, 1.0).optimize(blur(), X, tmp_path / "out.onnx")
    assert lowered(report) == []
    assert report.equivalence.bitwise
    assert report.speed is not None
    assert report.speed.speedup == pytest.approx(1.0)
    assert "slower than the original: 0.800x" in "".join(report.kept.values())
    text = "\n".join(summary_lines(report))
    assert "every convolution is kept: the tuned file is slower than the original" in text
    assert "keeping every convolution" in report.seconds
    again = optimize(blur(), (X,), tmp_path / "again.onnx", seconds=0, plan=report.plan)
    assert again.plan.choices == report.plan.choices
    assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "out.onnx").read_bytes()


@pytest.mark.slow
def test_a_tuned_file_that_is_not_slower_is_written(tmp_path: Path) -> None:
    """Faster, or no difference that can be claimed."""
    report = Desk(1.0).optimize(blur(), X, tmp_path / "out.onnx")
    assert len(lowered(report)) == 1
    assert not report.kept


@pytest.mark.slow
def test_rules_and_plans_are_done_as_asked(tmp_path: Path) -> None:
    """A plan that is slower here is a plan all the same: the report says that it is slower."""
    desk = Desk(2.0, 0.8)
    plan = desk.optimize(blur(), X, tmp_path / "out.onnx").plan
    report = desk.optimize(blur(), X, tmp_path / "out.onnx", plan)
    assert len(lowered(report)) == 1
    assert any("slower" in line for line in summary_lines(report))


def wide_blur() -> nn.Module:
    conv = nn.Conv2d(3, 3, 11, padding=5, groups=3, bias=False)
    conv.weight.data = torch.ones(3, 1, 11, 11)
    return nn.Sequential(conv).eval()


OPEN = ({0: Dim("batch", max=8), 3: Dim("width", min=12, max=640)},)
Y = torch.rand(1, 3, 64, 96)


@pytest.mark.slow
def test_tuned_on_what_is_measured(tmp_path: Path) -> None:
    """An open batch from an example of one item: traced with two, timed and measured with one. The result is
    measured at the largest size that was verified, too."""
    desk = Desk(2.0, 1.5)
    report = desk.optimize(wide_blur(), Y, tmp_path / "out.onnx", dynamic_shapes=({0: Dim("batch", max=8)},))
    assert len(lowered(report)) == 1
    assert set(desk.tuned_on) == {(1, 3, 64, 96)}
    found: list[Any] = [(shapes, timing.speedup) for shapes, timing in report.speed_at]
    assert found == [(((1, 3, 64, 96),), pytest.approx(2.0)), (((3, 3, 64, 96),), pytest.approx(1.5))]
    speed = report.to_json()["speed"]
    assert [(one["inputs"], one["speedup"]) for one in speed["sizes"]] == [
        ([list(shape) for shape in shapes], gain) for shapes, gain in found
    ]
    assert speed["speedup"] == speed["sizes"][0]["speedup"]
    assert any(line.startswith("speed at 3x3x64x96: ") for line in summary_lines(report))


@pytest.mark.slow
def test_tuned_at_what_is_asked(tmp_path: Path) -> None:
    """At the example and at the sizes of ``tune_at``. These are measured, and no others. The plan says at
    which shapes its times were taken."""
    desk = Desk(2.0, 1.5)
    report = desk.optimize(
        wide_blur(), Y, tmp_path / "out.onnx", dynamic_shapes=OPEN, tune_at=[[(4, 3, 64, 320)]]
    )
    assert desk.tuned_on == [(1, 3, 64, 96), (4, 3, 64, 320)]
    assert [shapes for shapes, _ in report.speed_at] == [((1, 3, 64, 96),), ((4, 3, 64, 320),)]
    timed = [key.partition("@")[2] for key in report.plan.made["timings_ms"]]
    assert timed == ["1x3x64x96", "4x3x64x320"]
    (site,) = report.to_json()["sites"]
    assert {one["shape"] for one in site["candidates"]} == set(timed)


@pytest.mark.slow
def test_a_tuned_file_that_is_slower_at_another_size_is_not_written(tmp_path: Path) -> None:
    """Although it is faster at the size of the example. The reason names the size."""
    desk = Desk(2.0, 0.8, 1.0, 1.0)
    report = desk.optimize(
        wide_blur(), Y, tmp_path / "out.onnx", dynamic_shapes=OPEN, tune_at=[[(4, 3, 64, 320)]]
    )
    assert lowered(report) == []
    assert "slower than the original at 4x3x64x320: 0.800x" in "".join(report.kept.values())


class Refused(nn.Module):
    """What the exporter writes and onnxruntime cannot run: a convolution of float64."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, groups=4, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x.double())


@pytest.mark.slow
def test_an_original_that_onnxruntime_refuses_is_refused_first(tmp_path: Path) -> None:
    """Before the graph is captured, let alone tuned; nothing is written."""
    said: list[str] = []
    with pytest.raises(ExportError, match="onnxruntime does not accept"):
        optimize(
            Refused().eval(),
            (torch.rand(1, 4, 8, 8),),
            tmp_path / "out.onnx",
            progress=said.append,
            seconds=0,
        )
    assert said == ["exporting the original", "running the original"]
    assert os.listdir(tmp_path) == []


@pytest.mark.slow
def test_every_stage_is_timed(tmp_path: Path) -> None:
    """Each once, in order, a line each; together they are the run."""
    report = optimize(blur(), (X,), tmp_path / "out.onnx", budget=1, seconds=0.5)
    names = list(report.seconds)
    assert names[:3] == ["exporting the original", "running the original", "finding kernels"]
    assert names[-2:] == ["checking equivalence", "measuring speed"]
    assert {"exporting the candidates", "timing the candidates"} <= report.seconds.keys()
    lines = stage_lines(report)
    assert all(any(line.endswith(f" s {name}") for line in lines) for name in names)
    assert report.to_json()["seconds"] == report.seconds


class BigHead(nn.Module):
    """A blur, and a layer whose weights are most of the model."""

    def __init__(self) -> None:
        super().__init__()
        self.blur = blur()
        self.head = nn.Linear(3 * 32 * 48, 100)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blur(x).flatten(1))


@pytest.mark.slow
@pytest.mark.parametrize("lowering", ["tuned", "static", "expand"])
def test_a_large_model(lowering: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights beyond what one file holds: written beside it, verified, timed one session at a time."""
    monkeypatch.setattr(files, "LARGE_BYTES", 100_000)
    opened: list[bool] = []

    def measured(*pair: Any, **more: Any) -> Timing:
        opened.append(all(files.is_large_file(Path(file)) for file in pair[:2]))
        return time_files(*pair, **more)

    options = Options(lowering, budget=2, seconds=0.5, stopwatch=Stopwatch(speed=measured))
    report = optimize_model(BigHead().eval(), (X,), tmp_path / "out.onnx", options, Stages())
    assert report.equivalence.passed
    assert "failed" not in report.plan.made
    assert sorted(os.listdir(tmp_path)) == ["out.onnx", "out.onnx.data"]
    assert (tmp_path / "out.onnx").stat().st_size < 100_000
    assert opened
    assert all(opened)
