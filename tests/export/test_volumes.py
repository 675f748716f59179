"""Volumes of any kernel in ONNX files: found, lowered as planned, and verified."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from export import optimize
from export.read_onnx.model import read_model
from export.read_onnx.sites import analyse
from export.runtime.session import open_session, run
from export.write_onnx.exporter import stock_export
from fx_passes import Choice, Plan
from fx_passes.lowerings import propose


def gradients() -> nn.Module:
    """Six derivatives of each channel; the model pads."""
    import kornia

    return kornia.filters.SpatialGradient3d(order=2)


def conv(rows: int = 1, **options: Any) -> nn.Module:
    """The same kernels of full rank, and the same biases, for each of two channels."""
    torch.manual_seed(0)
    module = nn.Conv3d(2, 2 * rows, 3, groups=2, **options)
    module.weight.data = torch.randn(rows, 1, 3, 3, 3).repeat(2, 1, 1, 1, 1)
    if module.bias is not None:
        module.bias.data = torch.arange(1.0, rows + 1).repeat(2)
    return module


MODELS = {
    "gradients": gradients,
    "strided": lambda: conv(stride=2, padding=1),
    "dilated": lambda: conv(dilation=2, padding=2, padding_mode="reflect"),
    "replicate": lambda: conv(padding=1, padding_mode="replicate", bias=False),
    "circular": lambda: conv(padding=1, padding_mode="circular"),
    "bank": lambda: conv(rows=3, padding=1),
}


@pytest.mark.parametrize("name", MODELS)
def test_volumes_of_any_kernel(name: str, tmp_path: Path) -> None:
    """Each way to compute them passes the check, and no convolution of three dimensions is left."""
    x = torch.randn(1, 2, 9, 8, 10)
    file = stock_export(MODELS[name]().eval(), (x,), tmp_path / "in.onnx")
    (site,), _ = analyse(read_model(file)).sites()
    assert (site.resample.dim, site.resample.groups) == (3, 2)
    assert bool(site.outside) == (name == "circular")  # exporters write this mode as slices
    ways = [p for p in propose(site.resample, site.kernel)[0] if p.lowering == "depth_polyphase"]
    assert len(ways) > 1
    for way in ways:
        plan = Plan({site.id: Choice(site.key, way)})
        report = optimize(file, None, tmp_path / "out.onnx", plan=plan, seconds=0)
        assert report.to_json()["equivalence"]["passed"]
        weights = {w.name: w.dims for w in onnx.load(tmp_path / "out.onnx").graph.initializer}
        convs = [n for n in onnx.load(tmp_path / "out.onnx").graph.node if n.op_type == "Conv"]
        assert [len(weights[node.input[1]]) for node in convs] == [4]
        both = [run(open_session(one), [x.numpy()])[0] for one in (file, tmp_path / "out.onnx")]
        np.testing.assert_allclose(both[1], both[0], rtol=0, atol=1e-5)


def test_the_rules_lower_a_volume_of_any_rank(tmp_path: Path) -> None:
    """They know what onnxruntime does for it."""
    torch.manual_seed(0)
    module, x = nn.Conv3d(1, 1, 7, padding=3).eval(), torch.randn(1, 1, 16, 32, 32)
    report = optimize(module, (x,), tmp_path / "out.onnx", lowering="static", seconds=0)
    (site,) = report.to_json()["sites"]
    assert "depth_polyphase" in str(site)
    assert report.to_json()["equivalence"]["passed"]
