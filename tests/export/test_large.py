"""A model of more weights than one protobuf message holds, at full size: what it takes of memory."""

from __future__ import annotations

import os
from pathlib import Path

import onnx
import pytest
from peak_memory import peaks

MODEL = """
import sys
import torch
from torch import nn

class Big(nn.Module):
    def __init__(self):
        super().__init__()
        self.blur = nn.Conv2d(3, 3, 11, groups=3, bias=False, padding=5)
        self.blur.weight.data.copy_(torch.ones(1, 1, 11, 11) / 121)
        self.head = nn.Linear(12288, 48000)

    def forward(self, x):
        return self.head(self.blur(x).flatten(1))

model, inputs = Big().eval(), (torch.rand(1, 3, 64, 64),)
"""
STOCK = "torch.onnx.export(model, inputs, sys.argv[1], dynamo=True, verbose=False, external_data=True)"
OURS = """
import export
report = export.optimize(model, inputs, sys.argv[1], lowering=sys.argv[2], budget=5, seconds=3)
assert report.equivalence.passed
assert "failed" not in report.plan.made, report.plan.made
"""
WEIGHTS = 4 * (12288 * 48000 + 48000)


def peak(code: str, *arguments: str) -> int:
    """Bytes in memory, at most, of a process of its own."""
    return peaks(f"{MODEL}\n{code}", arguments=arguments)[0]


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> int:
    """What the stock exporter takes for the same model."""
    return peak(STOCK, str(tmp_path_factory.mktemp("stock") / "stock.onnx"))


@pytest.mark.slow
@pytest.mark.parametrize("lowering", ["tuned", "static", "expand"])
def test_memory_of_a_large_model(lowering: str, stock: int, tmp_path: Path) -> None:
    """One and a half times the weights above the stock exporter; and the file is complete."""
    out = tmp_path / "out.onnx"
    assert peak(OURS, str(out), lowering) <= stock + 1.5 * WEIGHTS
    assert sorted(os.listdir(tmp_path)) == ["out.onnx", "out.onnx.data"]
    onnx.checker.check_model(str(out))
