"""A small model with one site of each kind, whose weights every machine computes alike."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def binomial(taps: int) -> Tensor:
    """A row of Pascal's triangle over its sum, a power of two: exact in float32."""
    row = torch.ones(1)
    for _ in range(taps - 1):
        row = F.pad(row, (1, 0)) + F.pad(row, (0, 1))
    return row / row.sum()


class Golden(nn.Module):
    """A wide blur, a blur pool behind a reflecting pad, an upsampler, a module, and one that differs."""

    def __init__(self) -> None:
        super().__init__()
        wide, narrow = (torch.outer(binomial(taps), binomial(taps)) for taps in (9, 3))
        self.wide = nn.Buffer(wide.repeat(3, 1, 1, 1))
        self.narrow = nn.Buffer(narrow[None, None])
        self.up = nn.Buffer(4 * torch.outer(binomial(4), binomial(4)).repeat(3, 1, 1, 1))
        self.sharpen = nn.Conv2d(3, 3, 3, padding=1, groups=3)
        self.sharpen.weight.data = (-narrow).repeat(3, 1, 1, 1)
        self.sharpen.get_parameter("bias").data = torch.full((3,), 0.5)
        self.mixed = nn.Conv2d(3, 3, 1, groups=3, bias=False)
        self.mixed.weight.data = torch.tensor([1.0, 2.0, 4.0]).reshape(3, 1, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(1, 3, 64, 64) -> (1, 3, 64, 64)."""
        y = F.conv2d(F.pad(x, (4, 4, 4, 4)), self.wide, groups=3)
        y = F.conv2d(
            F.pad(y, (1, 1, 1, 1), mode="reflect"), self.narrow.expand(3, 1, 3, 3), stride=2, groups=3
        )
        y = F.conv_transpose2d(y, self.up, stride=2, padding=1, groups=3)
        return self.mixed(self.sharpen(y))


def golden() -> tuple[nn.Module, tuple[Tensor, ...]]:
    """The model and its example inputs."""
    return Golden().eval(), (torch.ones(1, 3, 64, 64),)
