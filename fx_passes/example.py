"""Small models to try the tools on: ``fx-passes optimize fx_passes.example:blur -o blur.onnx``."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class GaussianBlur(nn.Module):
    """A Gaussian blur of images, as it is often written: one window, repeated for each channel.

    (N, channels, H, W) -> the same shape, float32. The border is reflected.
    """

    window: Tensor

    def __init__(self, channels: int = 3, size: int = 11, sigma: float = 2.0) -> None:
        super().__init__()
        distances = torch.arange(size) - (size - 1) / 2
        line = torch.exp(-(distances**2) / (2 * sigma**2))
        window = torch.outer(line, line) / line.sum() ** 2
        self.register_buffer("window", window.repeat(channels, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        side = self.window.shape[-1] // 2
        return F.conv2d(F.pad(x, (side,) * 4, mode="reflect"), self.window, groups=x.shape[1])


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


def blur() -> tuple[nn.Module, tuple[Tensor]]:
    """The Gaussian blur, and one RGB image of 256 x 256."""
    return GaussianBlur().eval(), (torch.rand(1, 3, 256, 256),)


def edges() -> tuple[nn.Module, tuple[Tensor]]:
    """The model with seeded random weights, and one image of 16 channels of 128 x 128."""
    torch.manual_seed(0)
    return AntiAliasedEdges().eval(), (torch.rand(1, 16, 128, 128),)
