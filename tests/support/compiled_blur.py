"""A model to compile, its inputs, and the comparison of what it computes."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Blur(nn.Module):
    """One kernel is a parameter with a bias, the other a buffer. A convolution between them is not shared."""

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 3, 9, padding=4, groups=3)
        self.mix = nn.Conv2d(3, 3, 1)
        self.register_buffer("kernel", torch.rand(1, 1, 5, 5))
        with torch.no_grad():
            self.conv.weight.copy_(self.conv.weight[:1].clone().expand_as(self.conv.weight))

    def forward(self, x: Tensor) -> Tensor:
        x = self.mix(self.conv(x).relu())
        return F.conv2d(F.pad(x, (2, 2, 2, 2), mode="reflect"), self.kernel.repeat(3, 1, 1, 1), groups=3)


class Scaled(Blur):
    """It has a parameter that is not a constant of the lowered graph."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.scale


def image(height: int = 40, width: int = 48, batch: int = 1) -> Tensor:
    """An image that is the same each time."""
    generator = torch.Generator().manual_seed(height * width)
    return torch.randn(batch, 3, height, width, generator=generator)


def require_same(compiled: Any, model: nn.Module, x: Tensor) -> None:
    """Fail unless ``compiled`` and ``model`` agree on ``x``."""
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-4)
