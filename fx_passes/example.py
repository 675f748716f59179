"""A small model to try the tools on: ``fx-passes optimize fx_passes.example:edges -o edges.onnx``."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class AntiAliasedEdges(nn.Module):
    """Blur, edges and an anti-aliased downsampling, in common code: one kernel is repeated for every channel.

    (N, channels, H, W) -> (N, channels, H/2, W/2), float32. H and W are even.
    """

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        taps = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
        blur = torch.outer(taps, taps)
        self.blur = nn.Conv2d(
            channels, channels, 5, padding=2, groups=channels, bias=False, padding_mode="reflect"
        )
        self.blur.weight = nn.Parameter(blur.repeat(channels, 1, 1, 1))
        self.mix = nn.Conv2d(channels, channels, 1)
        sobel = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])
        self.sobel = nn.Buffer(sobel, persistent=False)
        self.shrink = nn.Buffer(blur[None, None].repeat(channels, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.mix(F.relu(self.blur(x)))
        channels = x.shape[1]
        across = F.conv2d(x, self.sobel.repeat(channels, 1, 1, 1), padding=1, groups=channels)
        down = F.conv2d(x, self.sobel.T.repeat(channels, 1, 1, 1), padding=1, groups=channels)
        return F.conv2d(across.abs() + down.abs(), self.shrink, stride=2, padding=2, groups=channels)


def edges() -> tuple[nn.Module, tuple[Tensor]]:
    """The model with seeded random weights, and one image of 16 channels of 128 x 128."""
    torch.manual_seed(0)
    return AntiAliasedEdges().eval(), (torch.rand(1, 16, 128, 128),)
