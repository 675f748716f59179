"""The graphs of the speed benchmark: layers and models from their own packages, with random weights.

Each function returns ``(module, example_inputs)``. All tensors are float32, with channels first. ``GRAPHS``
lists the graphs with their goals for the speed-up over the stock export. A graph without such a goal must
still not become slower (``NO_LOSS``): the last graphs are plain layers that onnxruntime computes well in
their original form.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.append(str(Path(__file__).parents[1] / "tests" / "support"))

# timm, torchmetrics and transformers import torchvision. Beside a CPU-only torch, its wheel cannot load its
# compiled operators. Its Python part registers fake kernels, and can be imported if their schemas exist.
_torchvision = torch.library.Library("torchvision", "FRAGMENT")
_torchvision.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
_torchvision.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

Model = tuple[nn.Module, tuple[Any, ...]]
# On a quiet machine, two measurements of the same program differ by this much.
NO_LOSS = 0.98


@dataclass(frozen=True)
class Graph:
    """One row of the benchmark.

    Args:
        title: the name in the table, to which the shape of the input is added.
        goal: the smallest speed-up over the stock export, in onnxruntime.
        gaussian: taps along one side of a Gaussian window that OpenCV can compute as well, or None.
    """

    title: str
    build: Callable[[], Model]
    goal: float = NO_LOSS
    gaussian: int | None = None


def sigma(taps: int) -> float:
    """The standard deviation, in pixels, that OpenCV uses for a Gaussian window of ``taps`` pixels."""
    return 0.3 * ((taps - 1) / 2 - 1) + 0.8


def gaussian_blur(taps: int, size: int) -> Model:
    """(1, 3, size, size) blurred by a dense window, as in the augmentation for a detector."""
    import kornia

    blur = kornia.filters.GaussianBlur2d((taps, taps), (sigma(taps), sigma(taps)), separable=False)
    return blur, (torch.rand(1, 3, size, size),)


def ssim() -> Model:
    from torchmetrics.image import StructuralSimilarityIndexMeasure

    images = torch.rand(1, 3, 256, 256), torch.rand(1, 3, 256, 256)
    return StructuralSimilarityIndexMeasure(data_range=1.0), images


def pyramid_down() -> Model:
    import kornia

    return kornia.geometry.transform.PyrDown(), (torch.rand(1, 3, 256, 256),)


def motion_blur() -> Model:
    """A slanted line of 9 pixels. This window has no separable or low-rank form."""
    import kornia

    return kornia.filters.MotionBlur(9, angle=35.0, direction=0.5), (torch.rand(1, 3, 256, 256),)


def blur_pool() -> Model:
    import kornia

    return kornia.filters.BlurPool2D(kernel_size=3), (torch.rand(1, 64, 64, 64),)


def k_downsample(channels: int) -> Model:
    from diffusers.models.downsampling import KDownsample2D

    return KDownsample2D(), (torch.rand(1, channels, 64, 64),)


def k_upsample() -> Model:
    from diffusers.models.upsampling import KUpsample2D

    return KUpsample2D(), (torch.rand(1, 64, 64, 64),)


def fir_downsample() -> Model:
    from diffusers.models.downsampling import FirDownsample2D

    return FirDownsample2D(64, 64), (torch.rand(1, 64, 64, 64),)


def fir_upsample() -> Model:
    from diffusers.models.upsampling import FirUpsample2D

    return FirUpsample2D(64, 64), (torch.rand(1, 64, 64, 64),)


def bilinear_upsample() -> Model:
    """The last layer of FCN-8s (Long et al. 2015): 21 classes, up-sampled by 8, fixed bilinear window."""
    triangle = 1 - (torch.arange(16) + 0.5 - 8).abs() / 8
    conv = nn.ConvTranspose2d(21, 21, 16, stride=8, padding=4, groups=21, bias=False)
    return _repeat(conv, torch.outer(triangle, triangle)), (torch.rand(1, 21, 64, 64),)


def full_rank_upsample() -> Model:
    conv = nn.ConvTranspose2d(64, 64, 12, stride=2, padding=5, groups=64, bias=False)
    return _repeat(conv, torch.randn(12, 12)), (torch.rand(1, 64, 64, 64),)


def anti_aliased_activation() -> Model:
    from transformers.models.qwen2_5_omni.modeling_qwen2_5_omni import (
        Qwen2_5OmniAntiAliasedActivation1d,
        Qwen2_5OmniSnakeBeta,
    )

    return Qwen2_5OmniAntiAliasedActivation1d(Qwen2_5OmniSnakeBeta(512)), (torch.randn(1, 512, 1000),)


def vocoder() -> Model:
    import real_models

    return real_models.vocoder()


def resnetblur50() -> Model:
    import timm

    return timm.create_model("resnetblur50"), (torch.rand(1, 3, 224, 224),)


def depthwise(channels: int, size: int) -> Model:
    conv = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
    return _repeat(conv, torch.randn(3, 3)), (torch.rand(1, channels, size, size),)


def downsample_1d() -> Model:
    conv = nn.Conv1d(64, 64, 12, stride=2, padding=5, groups=64, bias=False)
    return _repeat(conv, torch.randn(12)), (torch.rand(1, 64, 4000),)


def upsample_1d() -> Model:
    conv = nn.ConvTranspose1d(64, 64, 12, stride=2, padding=5, groups=64, bias=False)
    return _repeat(conv, torch.randn(12)), (torch.rand(1, 64, 2000),)


def _repeat(conv: nn.Conv1d | nn.Conv2d | nn.ConvTranspose1d | nn.ConvTranspose2d, taps: Tensor) -> nn.Module:
    """``conv`` with ``taps``, (kw,) or (kh, kw), repeated for every channel."""
    conv.weight.data = taps.expand(conv.weight.shape).contiguous()
    return conv


GRAPHS = {
    "blur11": Graph("kornia GaussianBlur2d 11x11", partial(gaussian_blur, 11, 256), 9.0, gaussian=11),
    "blur31": Graph("kornia GaussianBlur2d 31x31", partial(gaussian_blur, 31, 512), 50.0, gaussian=31),
    "ssim": Graph("torchmetrics SSIM", ssim, 8.0),
    "pyrdown": Graph("kornia PyrDown", pyramid_down, 2.5),
    "motionblur": Graph("kornia MotionBlur 9", motion_blur),
    "blurpool": Graph("kornia BlurPool2D 3", blur_pool),
    "kdown64": Graph("diffusers KDownsample2D", partial(k_downsample, 64), 10.0),
    "kdown256": Graph("diffusers KDownsample2D", partial(k_downsample, 256), 30.0),
    "kup64": Graph("diffusers KUpsample2D", k_upsample, 5.0),
    "firdown64": Graph("diffusers FirDownsample2D", fir_downsample, 3.0),
    "firup64": Graph("diffusers FirUpsample2D", fir_upsample, 3.0),
    "bilinear": Graph("ConvTranspose2d 16x16 stride 8, bilinear", bilinear_upsample, 3.0),
    "full12": Graph("ConvTranspose2d 12x12 stride 2, full rank", full_rank_upsample, 3.0),
    "activation": Graph("Qwen2.5-Omni anti-aliased activation", anti_aliased_activation, 4.0),
    "vocoder": Graph("Qwen2.5-Omni BigVGAN vocoder", vocoder, 1.5),
    "resnetblur50": Graph("timm resnetblur50", resnetblur50),
    "depthwise64": Graph("depthwise Conv2d 3x3", partial(depthwise, 64, 56)),
    "depthwise256": Graph("depthwise Conv2d 3x3", partial(depthwise, 256, 14)),
    "conv1d": Graph("depthwise Conv1d 12 stride 2", downsample_1d),
    "convtranspose1d": Graph("depthwise ConvTranspose1d 12 stride 2", upsample_1d),
}
