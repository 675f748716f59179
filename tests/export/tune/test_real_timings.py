"""Tuning with the real onnxruntime and a real clock."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from desk import X, found_in
from torch import nn

from export import optimize
from export.runtime.target import Target
from export.tune.alone import time_alone


@pytest.mark.slow
def test_half_precision() -> None:
    """onnxruntime runs a model in float16, so it can be tuned."""
    half = found_in(torch.float16)
    times = time_alone(half.candidates[0], half.library, Target(), 0.0)
    assert times.keys() == set(half.candidates[0].names)


@pytest.mark.slow
def test_a_real_tuning(tmp_path: Path) -> None:
    """Every candidate has a time, the choice is one of them, and the file is right."""
    conv = nn.Conv2d(3, 3, 5, padding=2, groups=3)
    conv.weight.data = conv.weight.data[:1].repeat(3, 1, 1, 1)
    report = optimize(nn.Sequential(conv).eval(), (X,), tmp_path / "out.onnx", budget=1.0, seconds=0)
    onnx.checker.check_model(str(tmp_path / "out.onnx"), full_check=True)
    assert report.equivalence.passed
    assert report.lowering == "tuned"
    assert report.plan.made["environment"] == report.environment
    (site,) = report.to_json()["sites"]
    times = {candidate["lowering"]: candidate["ms"] for candidate in site["candidates"]}
    assert {"expand", site["lowering"], "polyphase(phases=16)"} <= times.keys()
    assert all(time > 0 for time in times.values())
