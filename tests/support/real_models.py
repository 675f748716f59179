"""Real models, built from their own packages with random weights, and how many sites each has.

Each function returns ``(module, example_inputs)``, so that ``tests/support/real_models.py:name`` is a MODEL.
``EXPECTED`` says, from reading the source of each model, how many convolutions share a kernel among
their groups, how many have one channel (one kernel already), and how many in groups must be refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

Model = tuple[nn.Module, tuple[Any, ...]]


@dataclass(frozen=True)
class Sites:
    """How many candidate convolutions of each verdict a model has.

    ``merged`` of them compute the same as another one, on the same input: the exporter leaves one of each.
    """

    shared: int
    single: int = 0
    refused: int = 0
    merged: int = 0


EXPECTED = {
    # filter2d: the 2-D window, expanded to the channels, conv2d with groups = channels.
    "gaussian_blur": Sites(shared=1),
    # kernel.repeat(channels, 1, 1, 1), conv2d with groups = channels and stride 2.
    "blur_pool": Sites(shared=1),
    # grey: separable 5-tap Gaussian on one channel, two convolutions of 1 -> 1; the Sobel pair is a bank,
    # a convolution of 1 -> 2; hysteresis, in a while_loop, is dense.
    "canny": Sites(shared=0, single=3),
    # the five windowed means are one conv2d on a concatenation, groups = channels.
    "ssim": Sites(shared=1),
    # new_zeros, kernel written on the diagonal, dense conv2d.
    "k_downsample": Sites(shared=1),
    # the same with conv_transpose2d.
    "k_upsample": Sites(shared=1),
    # upfirdn2d_native moves channels into the batch: one convolution of 1 -> 1.
    "fir_downsample": Sites(shared=0, single=1),
    # blur pools: after the stem, and in the first block of layers 2, 3 and 4.
    "resnetblur50": Sites(shared=4),
    # 6 stages of 3 residual blocks of 6 activations, and one at the end: 109, each with one upsampling
    # ConvTranspose1d and one downsampling Conv1d.
    "vocoder": Sites(shared=218, merged=16),
    # the same with one stage of one residual block: 7 activations.
    "small_vocoder": Sites(shared=14),
}


def gaussian_blur() -> Model:
    import kornia

    blur = kornia.filters.GaussianBlur2d((11, 11), (1.5, 1.5), separable=False)
    return blur, (torch.rand(1, 3, 64, 64),)


def blur_pool() -> Model:
    import kornia

    return kornia.filters.BlurPool2D(kernel_size=3), (torch.rand(1, 3, 64, 64),)


def canny() -> Model:
    import kornia

    return kornia.filters.Canny(), (torch.rand(1, 3, 64, 64),)


def ssim() -> Model:
    from torchmetrics.image import StructuralSimilarityIndexMeasure

    images = torch.rand(1, 3, 64, 64), torch.rand(1, 3, 64, 64)
    return StructuralSimilarityIndexMeasure(data_range=1.0), images


def k_downsample() -> Model:
    from diffusers.models.downsampling import KDownsample2D

    return KDownsample2D(), (torch.rand(1, 8, 32, 32),)


def k_upsample() -> Model:
    from diffusers.models.upsampling import KUpsample2D

    return KUpsample2D(), (torch.rand(1, 8, 32, 32),)


def fir_downsample() -> Model:
    from diffusers.models.downsampling import FirDownsample2D

    return FirDownsample2D(8, 8), (torch.rand(1, 8, 32, 32),)


def resnetblur50() -> Model:
    import timm

    return timm.create_model("resnetblur50").eval(), (torch.rand(1, 3, 64, 64),)


def vocoder() -> Model:
    """The vocoder of Qwen2.5-Omni in its own size."""
    return _vocoder(512, [4, 4, 2, 2, 2, 2], [3, 7, 11])


def small_vocoder() -> Model:
    """One stage of it with one residual block, on few channels."""
    return _vocoder(64, [4], [3])


def _vocoder(channels: int, rates: list[int], kernels: list[int]) -> Model:
    from transformers.models.qwen2_5_omni.configuration_qwen2_5_omni import (
        Qwen2_5OmniBigVGANConfig,
    )
    from transformers.models.qwen2_5_omni.modeling_qwen2_5_omni import (
        Qwen2_5OmniToken2WavBigVGANModel,
    )

    config = Qwen2_5OmniBigVGANConfig(
        mel_dim=80,
        upsample_initial_channel=channels,
        upsample_rates=rates,
        upsample_kernel_sizes=[2 * rate for rate in rates],
        resblock_kernel_sizes=kernels,
        resblock_dilation_sizes=[[1, 3, 5]] * len(kernels),
    )
    return Qwen2_5OmniToken2WavBigVGANModel(config).eval(), (torch.randn(1, 80, 10),)
