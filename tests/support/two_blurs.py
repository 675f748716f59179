"""A model with two blurs, an input for it, and a function that optimizes a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from export import optimize


class Blurs(nn.Module):
    """A blur, a mix of the channels, and another blur. A blur has one window for all channels."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Buffer(torch.rand(1, 1, 3, 3).repeat(4, 1, 1, 1))
        self.mix = nn.Conv2d(4, 4, 1)
        self.second = nn.Buffer(torch.rand(1, 1, 3, 3).repeat(4, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.mix(F.conv2d(x, self.first, padding=1, groups=4))
        return F.conv2d(x, self.second, padding=1, groups=4)


X = torch.rand(1, 4, 12, 12)


def run(model: nn.Module, path: Path, inputs: tuple[Any, ...] = (X,), **more: Any) -> Any:
    """Optimize a model by ``expand`` and without measuring, unless the test says otherwise."""
    return optimize(model.eval(), inputs, path, **{"seconds": 0, "lowering": "expand", **more})
