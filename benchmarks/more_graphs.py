"""More graphs of the speed benchmark: pairs, volumes and banks, and ten graphs that nobody tuned for.

``PAIRS_VOLUMES_BANKS`` have goals. ``HELD_OUT`` were listed before any of them was measured; each must only
not become slower.
"""

from __future__ import annotations

from functools import partial

import torch
from graphs import GRAPHS, Graph, Model
from torch import Tensor, nn


def separable_blur(taps: int, height: int, width: int) -> Model:
    """A blur as people use it: by default, kornia computes a row and then a column."""
    import kornia

    sigma = 0.3 * ((taps - 1) / 2 - 1) + 0.8
    return kornia.filters.GaussianBlur2d((taps, taps), (sigma, sigma)), (torch.rand(1, 3, height, width),)


def unsharp_mask() -> Model:
    import kornia

    return kornia.filters.UnsharpMask((15, 15), (2.5, 2.5)), (torch.rand(1, 3, 256, 256),)


def scale_pyramid() -> Model:
    import kornia

    pyramid = kornia.geometry.ScalePyramid(n_levels=3, init_sigma=1.6, min_size=32)
    return pyramid, (torch.rand(1, 1, 256, 256),)


def volume() -> Model:
    """A kernel of rank 1 on 3 channels of 8 x 96 x 96."""
    torch.manual_seed(0)
    lines = [torch.rand(3, 1, 1), torch.rand(9, 1), torch.rand(9)]
    conv = nn.Conv3d(3, 3, (3, 9, 9), padding=(1, 4, 4), groups=3, bias=False)
    conv.weight.data = (lines[0] * lines[1] * lines[2]).expand(3, 1, 3, 9, 9).contiguous()
    return conv, (torch.randn(1, 3, 8, 96, 96),)


def ssim_3d(taps: int, depth: int) -> Model:
    import kornia

    volumes = torch.rand(1, 1, depth, 64, 64), torch.rand(1, 1, depth, 64, 64)
    return kornia.metrics.SSIM3D(taps), volumes


class Wavelet(nn.Module):
    """A step of a db3 wavelet transform, as pytorch_wavelets computes it: the low and the high pass of each
    channel along the width, and both again along the height."""

    # Daubechies, Ten Lectures on Wavelets, 1992, table 6.1.
    LOW = (0.33267055, 0.80689151, 0.45987750, -0.13501102, -0.08544127, 0.03522629)

    def __init__(self) -> None:
        super().__init__()
        low = torch.tensor(self.LOW)
        signs = torch.tensor([1.0, -1.0]).repeat(3)
        self.pair = nn.Buffer(torch.stack([low.flip(0), low * signs]))

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        row = self.pair[:, None, None].repeat(channels, 1, 1, 1)
        y = nn.functional.conv2d(x, row, None, (1, 2), (0, 4), 1, channels)
        column = self.pair[:, None, :, None].repeat(2 * channels, 1, 1, 1)
        return nn.functional.conv2d(y, column, None, (2, 1), (4, 0), 1, 2 * channels)


def wavelet(channels: int) -> Model:
    return Wavelet(), (torch.rand(1, channels, 256, 256),)


def gradients(*shape: int) -> Model:
    import kornia

    return kornia.filters.SpatialGradient(), (torch.rand(shape),)


def gradients_3d() -> Model:
    """Of the second order: those of the first, kornia computes without a convolution."""
    import kornia

    return kornia.filters.SpatialGradient3d(order=2), (torch.rand(1, 1, 16, 64, 64),)


def sobel() -> Model:
    import kornia

    return kornia.filters.Sobel(), (torch.rand(1, 3, 256, 256),)


def _kornia(module: str, name: str, *args: object, channels: int = 3) -> Model:
    import kornia

    folder = getattr(kornia, module)
    return getattr(folder, name)(*args), (torch.rand(1, channels, 256, 256),)


def _pair_of_images(name: str) -> Model:
    import torchmetrics.image

    options = {"data_range": 1.0} if "Structural" in name else {}
    images = torch.rand(1, 3, 256, 256), torch.rand(1, 3, 256, 256)
    return getattr(torchmetrics.image, name)(**options), images


def ssim_loss() -> Model:
    import kornia

    images = torch.rand(1, 3, 256, 256), torch.rand(1, 3, 256, 256)
    return kornia.losses.SSIMLoss(11), images


def harris() -> Model:
    import kornia

    return kornia.feature.CornerHarris(torch.tensor(0.04)), (torch.rand(1, 1, 256, 256),)


def timm_blur_pool() -> Model:
    from timm.layers.blur_pool import BlurPool2d

    return BlurPool2d(64), (torch.rand(1, 64, 56, 56),)


PAIRS_VOLUMES_BANKS = {
    "separable15": Graph(
        "kornia GaussianBlur2d 15x15, separable", partial(separable_blur, 15, 320, 240), 3.4
    ),
    "separable31": Graph(
        "kornia GaussianBlur2d 31x31, separable", partial(separable_blur, 31, 512, 512), 3.35
    ),
    "unsharp": Graph("kornia UnsharpMask 15x15", unsharp_mask, 1.8),
    "pyramid": Graph("kornia ScalePyramid", scale_pyramid, 2.5),
    "volume": Graph("Conv3d 3x9x9 of rank 1", volume, 15.0),
    "ssim3d5": Graph("kornia SSIM3D 5", partial(ssim_3d, 5, 16), 3.0),
    "ssim3d11": Graph("kornia SSIM3D 11", partial(ssim_3d, 11, 16), 3.0),
    "wavelet16": Graph("wavelet db3, 16 channels", partial(wavelet, 16), 2.0),
    "wavelet3": Graph("wavelet db3, RGB", partial(wavelet, 3), 2.0),
    "gradients": Graph("kornia SpatialGradient", partial(gradients, 1, 1, 480, 640)),
    "gradients3d": Graph("kornia SpatialGradient3d, order 2", gradients_3d),
    "sobel": Graph("kornia Sobel", sobel),
}
HELD_OUT = {
    "laplacian": Graph("kornia Laplacian 5", partial(_kornia, "filters", "Laplacian", 5)),
    "box9": Graph("kornia BoxBlur 9", partial(_kornia, "filters", "BoxBlur", (9, 9))),
    "canny": Graph("kornia Canny", partial(_kornia, "filters", "Canny")),
    "pyrup": Graph("kornia PyrUp", partial(_kornia, "geometry", "PyrUp")),
    "harris": Graph("kornia CornerHarris", harris),
    "ssimloss": Graph("kornia SSIMLoss 11", ssim_loss),
    "msssim": Graph(
        "torchmetrics MS-SSIM", partial(_pair_of_images, "MultiScaleStructuralSimilarityIndexMeasure")
    ),
    "uqi": Graph("torchmetrics UQI", partial(_pair_of_images, "UniversalImageQualityIndex")),
    "vif": Graph("torchmetrics VIF", partial(_pair_of_images, "VisualInformationFidelity")),
    "timmblur": Graph("timm BlurPool2d", timm_blur_pool),
}
ALL = GRAPHS | PAIRS_VOLUMES_BANKS | HELD_OUT
