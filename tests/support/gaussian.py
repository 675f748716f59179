"""Blurs with a Gaussian window, exported by the static rules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from export import optimize
from export.report.result import Report


def window(size: int = 11, sigma: float = 1.5) -> Tensor:
    """A Gaussian window in float32."""
    line = torch.exp(-((torch.arange(float(size)) - size // 2) ** 2) / (2 * sigma**2))
    return torch.outer(line, line) / line.sum() ** 2


class Blur(nn.Module):
    """A blur of 16 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.taps = nn.Buffer(window().expand(16, 1, 11, 11).clone())

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.taps, groups=16)


def static(model: nn.Module, inputs: tuple[Any, ...], path: Path) -> Report:
    """The report on a model that the static rules lower."""
    return optimize(model.eval(), inputs, path, lowering="static", seconds=0)


def lowered(report: Report) -> list[str]:
    """The names of the lowerings in the plan."""
    return [c.proposal.lowering for c in report.plan.choices.values() if c.proposal is not None]
