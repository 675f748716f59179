"""The graphs of the benchmark with open sizes: which sizes are open, and at which others they are measured.

The graphs are those of ``graphs.py``, and some more that people export with open sizes. ``OPEN_GRAPHS`` lists
them with their goals. An open size has a dimension and a name, and is the same in all inputs.
"""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import graphs
import torch
from graphs import Model
from torch import Tensor, nn
from torch.export import Dim

IMAGES = {0: "batch", 2: "height", 3: "width"}
SIDES = {2: "height", 3: "width"}
# The least share of the gain with fixed sizes, for all graphs without a goal of their own: any.
NO_SHARE = 0.0


@dataclass(frozen=True)
class OpenGraph:
    """One row of the benchmark.

    Args:
        title: the name in the table.
        build: gives the module and its example inputs.
        dims: the open dimensions of every input, with their names.
        smaller, larger: values of the open sizes, in the order of ``dims``. They are measured, too.
        checked: further values, at which the outputs are only compared.
        share: the least share of the gain with fixed sizes that must be left with open ones.
    """

    title: str
    build: Callable[[], Model]
    dims: dict[int, str]
    smaller: tuple[int, ...]
    larger: tuple[int, ...]
    checked: tuple[tuple[int, ...], ...] = ()
    share: float = NO_SHARE

    def dynamic_shapes(self, model: nn.Module, inputs: Sequence[Tensor]) -> tuple[Any, ...]:
        """The open sizes as ``torch.export`` takes them. ``*args`` are one argument."""
        sizes = {dim: Dim(name) for dim, name in self.dims.items()}
        each = tuple(dict(sizes) for _ in inputs)
        kinds = [parameter.kind for parameter in inspect.signature(model.forward).parameters.values()]
        return (each,) if kinds[0] == inspect.Parameter.VAR_POSITIONAL else each

    def at(self, inputs: Sequence[Tensor], sizes: Sequence[int]) -> tuple[Tensor, ...]:
        """Random inputs of the types of ``inputs``, with these values of the open sizes."""
        changed = dict(zip(self.dims, sizes, strict=True))
        return tuple(
            _random([changed.get(dim, size) for dim, size in enumerate(x.shape)], x.dtype) for x in inputs
        )


def _random(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Numbers of [0, 1), or grey levels."""
    if dtype.is_floating_point:
        return torch.rand(*shape, dtype=dtype)
    return torch.randint(0, 256, tuple(shape), dtype=dtype)


class Cropped(nn.Module):
    """Scores for each pixel of an image, as in FCN-8s: features at an eighth of its size, up-sampled by 8 and
    cropped to the size of the image."""

    def __init__(self, up: nn.Module) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 21, 3, stride=8, padding=1)
        self.up = up

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 21, H, W)."""
        height, width = image.shape[-2:]
        return self.up(self.features(image))[..., :height, :width]  # type: ignore[no-any-return]


class BufferBlurPool(nn.Module):
    """Blurs and takes every second pixel. The filter is a buffer of one channel, repeated where it is used:
    as libraries write the blur pool of Zhang 2019."""

    filter: Tensor

    def __init__(self) -> None:
        super().__init__()
        taps = torch.tensor([1.0, 2.0, 1.0]) / 4
        self.register_buffer("filter", torch.outer(taps, taps)[None, None])

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, ceil(H / 2), ceil(W / 2))."""
        channels = x.shape[1]
        repeated = self.filter.repeat(channels, 1, 1, 1)
        return nn.functional.conv2d(x, repeated, stride=2, padding=1, groups=channels)


class BytesBlur(nn.Module):
    """torchvision's Gaussian blur of 11x11 pixels, of images whose pixels are bytes."""

    def forward(self, image: Tensor) -> Tensor:
        """(3, H, W), uint8, to the same."""
        from torchvision.transforms.v2.functional import gaussian_blur

        return gaussian_blur(image, [11, 11])  # type: ignore[no-any-return]


def fcn_crop() -> Model:
    up, _ = graphs.bilinear_upsample()
    return Cropped(up), (torch.rand(1, 3, 512, 512),)


def buffer_blur_pool() -> Model:
    return BufferBlurPool(), (torch.rand(1, 64, 64, 64),)


def composer_blur_pool() -> Model:
    """Composer's BlurPool2d. Its file is loaded alone: the package would import all of Composer."""
    package = importlib.util.find_spec("composer")
    if package is None or not package.submodule_search_locations:
        raise ModuleNotFoundError("composer is not installed")
    path = Path(package.submodule_search_locations[0]) / "algorithms" / "blurpool" / "blurpool_layers.py"
    spec = importlib.util.spec_from_file_location("blurpool_layers", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.BlurPool2d(channels=64), (torch.rand(1, 64, 64, 64),)


def bytes_blur() -> Model:
    return BytesBlur(), (_random((3, 256, 256), torch.uint8),)


def of_batch(build: Callable[[], Model], batch: int) -> Model:
    """The graph that ``build`` gives, with another batch in the example."""
    model, inputs = build()
    return model, tuple(x.repeat(batch, *[1] * (x.ndim - 1)) for x in inputs)


OPEN_GRAPHS = {
    "blur11": OpenGraph(
        "kornia GaussianBlur2d 11x11",
        partial(graphs.gaussian_blur, 11, 256),
        IMAGES,
        smaller=(1, 97, 131),
        larger=(2, 321, 383),
        share=0.9,
    ),
    "blur31": OpenGraph(
        "kornia GaussianBlur2d 31x31",
        partial(graphs.gaussian_blur, 31, 256),
        IMAGES,
        smaller=(1, 97, 131),
        larger=(2, 321, 383),
        share=0.9,
    ),
    "ssim": OpenGraph(
        "torchmetrics SSIM",
        graphs.ssim,
        SIDES,  # torchmetrics fixes the batch: it splits a tensor into parts of that size
        smaller=(97, 131),
        larger=(385, 511),
        share=0.9,
    ),
    "vocoder": OpenGraph(
        "Qwen2.5-Omni BigVGAN vocoder",
        graphs.vocoder,
        {2: "length"},
        smaller=(7,),
        larger=(33,),
        checked=((1,), (200,)),
        share=0.95,
    ),
    "bilinear": OpenGraph(
        "ConvTranspose2d 16x16 stride 8, bilinear",
        graphs.bilinear_upsample,
        SIDES,
        smaller=(25, 33),
        larger=(97, 131),
    ),
    "fcncrop": OpenGraph(
        "the same behind a convolution, cropped as in FCN-8s",
        fcn_crop,
        SIDES,
        smaller=(201, 259),
        larger=(771, 1025),
    ),
    "blurpool": OpenGraph(
        "kornia BlurPool2D 3", graphs.blur_pool, IMAGES, smaller=(1, 31, 45), larger=(3, 97, 131)
    ),
    "composerpool": OpenGraph(
        "Composer BlurPool2d", composer_blur_pool, IMAGES, smaller=(1, 31, 45), larger=(3, 97, 131)
    ),
    "bufferpool": OpenGraph(
        "blur pool 3, from a buffer", buffer_blur_pool, IMAGES, smaller=(1, 31, 45), larger=(3, 97, 131)
    ),
    "bytesblur": OpenGraph(
        "torchvision gaussian_blur 11x11, uint8",
        bytes_blur,
        {1: "height", 2: "width"},
        smaller=(97, 131),
        larger=(385, 511),
        share=0.9,
    ),
    "firup64": OpenGraph(
        "diffusers FirUpsample2D",
        partial(of_batch, graphs.fir_upsample, 2),
        {0: "batch"},
        smaller=(1,),
        larger=(5,),
    ),
    "firdown64": OpenGraph(
        "diffusers FirDownsample2D",
        partial(of_batch, graphs.fir_downsample, 2),
        {0: "batch"},
        smaller=(1,),
        larger=(5,),
    ),
}
