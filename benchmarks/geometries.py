"""Random shared convolutions, the points of the grid that ``grid.py`` measures.

Point ``i`` of seed ``s`` is the same on every machine. Its work is limited by the number of multiplications,
not by a clock: about 0.02 to 60 ms for the stock export on one thread. Volumes are a grid of their own.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

KINDS = ("plain", "transposed", "dense", "several")
_CHANNELS = (1, 2, 3, 4, 6, 8, 12, 16, 16, 21, 24, 32, 32, 48, 64, 64, 96, 128, 192, 256, 384, 512)
# Limits of a point: multiplications (including those with zeros outside the blocks), elements of its largest
# tensor, and elements of its weight.
_MOST_WORK, _MOST_ELEMENTS, _MOST_WEIGHTS = 1 << 27, 1 << 22, 1 << 21


@dataclass(frozen=True)
class Point:
    """One geometry with its surroundings.

    Args:
        kind: ``plain`` or ``transposed``: one channel per group. ``dense``: zeros outside the blocks.
            ``several``: several rows or columns per group, including wavelets. The last two are sometimes
            transposed.
        channels: groups of the convolution, or blocks if it is dense.
        rank: the rank of a 2-D kernel; of a 3-D one, that of the plane which a line along the depth is
            multiplied with. 0: full rank.
        mode: the padding mode.
        bias: ``""``, ``"shared"`` or ``"own"`` (another number for each channel).
        siblings: the number of inputs on which the graph computes the same site.
        between: taps of the dense convolutions before and behind the site. 0: the site is alone in its graph.
    """

    kind: str
    transposed: bool
    channels: int
    rows: int
    columns: int
    taps: tuple[int, ...]
    rank: int
    stride: tuple[int, ...]
    dilation: int
    padding: tuple[int, ...]
    mode: str
    bias: str
    batch: int
    size: tuple[int, ...]
    siblings: int
    between: int

    @property
    def dim(self) -> int:
        """The number of spatial axes: 1 to 3."""
        return len(self.taps)

    @property
    def title(self) -> str:
        """The point in one line, for a table."""
        shape = "x".join(map(str, (self.batch, self.channels * self.columns, *self.size)))
        name = "transposed " * (self.transposed and self.kind != "transposed") + self.kind
        parts = [f"{name} {shape}", f"{'x'.join(map(str, self.taps))} taps"]
        parts += [f"{self.columns} -> {self.rows} a group"] if self.rows * self.columns > 1 else []
        parts += [f"stride {'x'.join(map(str, self.stride))}"] if max(self.stride) > 1 else []
        parts += [f"dilation {self.dilation}"] if self.dilation > 1 else []
        parts += [f"rank {self.rank or 'full'}"] if self.dim > 1 else []
        parts += [self.mode] if self.mode != "zeros" else []
        parts += [f"{self.siblings} siblings"] if self.siblings > 1 else []
        parts += [f"between {self.between}-tap convolutions"] if self.between else []
        return ", ".join(parts)


def draw(seed: int, index: int, volumes: bool = False) -> Point:
    """Point ``index`` of the grid of ``seed``; or of the grid of volumes, ``plain`` and banks."""
    rng = random.Random(f"{seed} {index}" + " volumes" * volumes)
    if volumes:
        kind, dim = rng.choices(("plain", "several"), (70, 30))[0], 3
    else:
        kind, dim = rng.choices(KINDS, (48, 22, 12, 18))[0], rng.choices((1, 2), (35, 65))[0]
    transposed = not volumes and (
        kind == "transposed" or (kind in ("dense", "several") and rng.random() < 0.25)
    )
    while (point := _draw(rng, kind, dim, transposed)) is None:
        pass
    return point


def _draw(rng: random.Random, kind: str, dim: int, transposed: bool) -> Point | None:
    """A point. None if its work is too large or its padding too wide."""
    channels = rng.choice(_CHANNELS)
    rows, columns = _group(rng, kind) if dim < 3 else (rng.choice((2, 3, 6)) if kind == "several" else 1, 1)
    taps = _taps(rng, dim, kind)
    common = rng.choices((1, 2, 3, 4, 8), (50, 32, 6, 8, 4) if not transposed else (6, 62, 8, 16, 8))[0]
    stride = tuple(common if rng.random() < 0.93 else 1 for _ in taps)
    dilation = 1 if rng.random() < 0.88 else rng.choice((2, 3, 4))
    padding = tuple(rng.choice((0, dilation * (n - 1) // 2, dilation * (n - 1) // 2)) for n in taps)
    modes = ("zeros",) * 7 + ("reflect", "replicate", "circular")
    mode = "zeros" if transposed else rng.choice(modes)
    batch = rng.choice((1, 1, 1, 1, 2, 4, 8))
    outputs = 2 ** rng.uniform(9, 22)
    side = max(outputs / (batch * channels * rows), 1.0)
    shrink = math.prod(stride) if not transposed else 1 / math.prod(stride)
    side = side * shrink
    size = _size(rng, dim, side)
    bias = rng.choice(("", "", "shared", "own"))
    siblings = rng.choice((2, 5)) if kind == "plain" and rng.random() < 0.1 else 1
    between = rng.choice((0, 0, 1, 3)) if siblings == 1 else 0
    rank = rng.choice((0, 1, 1, 2) if dim < 3 else (0, 0, 1, 2))
    point = Point(
        kind, transposed, channels, rows, columns, taps, rank, stride, dilation, padding, mode, bias, batch,
        size, siblings, between,
    )  # fmt: skip
    return point if _fits(point) else None


def _size(rng: random.Random, dim: int, samples: float) -> tuple[int, ...]:
    """About so many samples, along each axis."""
    if dim == 1:
        return (round(samples),)
    depth = round(2 ** rng.uniform(2, 5)) if dim == 3 else 1
    across, aspect = samples / depth, 2 ** rng.uniform(-1, 1)
    plane = round(math.sqrt(across * aspect)), round(math.sqrt(across / aspect))
    return (depth, *plane) if dim == 3 else plane


def _group(rng: random.Random, kind: str) -> tuple[int, int]:
    if kind == "several":
        return rng.choice(
            ((2, 1), (2, 1), (3, 1), (4, 1), (4, 1), (8, 1), (1, 2), (1, 4), (2, 2), (4, 4), (8, 8))
        )
    if kind == "dense":
        return rng.choice(((1, 1), (1, 1), (1, 1), (2, 2), (4, 4)))
    return 1, 1


def _taps(rng: random.Random, dim: int, kind: str) -> tuple[int, ...]:
    most = 8 if kind == "several" or dim == 3 else 31
    first, second = (round(2 ** rng.uniform(1, math.log2(most + 0.49))) for _ in range(2))
    if dim == 1:
        return (first,)
    if dim == 3:
        return rng.choice(
            ((first, first, first),) * 5 + ((second, first, first), (first, 1, 1), (1, first, first))
        )
    return rng.choice(((first, first),) * 7 + ((first, 1), (1, first), (first, second)))


def _fits(point: Point) -> bool:
    reach = [point.dilation * (n - 1) for n in point.taps]
    for size, span, padding, stride in zip(point.size, reach, point.padding, point.stride, strict=True):
        out = (size - 1) * stride + span + 1 - 2 * padding if point.transposed else size + 2 * padding - span
        if size < 4 or out < 4 or (point.mode != "zeros" and padding >= size):
            return False
    grow = math.prod(point.stride) if point.transposed else 1 / math.prod(point.stride)
    planes = point.batch * point.channels * point.siblings
    inputs = planes * point.columns * math.prod(point.size)
    outputs = planes * point.rows * math.prod(point.size) * grow
    products = max(inputs if point.transposed else outputs, 1) * math.prod(point.taps) * point.columns
    weights = point.channels * point.rows * point.columns * math.prod(point.taps)
    if point.kind == "dense":
        products, weights = products * point.channels, weights * point.channels
    return max(inputs, outputs) <= _MOST_ELEMENTS and products <= _MOST_WORK and weights <= _MOST_WEIGHTS


def build(point: Point, seed: int = 0) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """The model of a point, in evaluation mode, and its inputs (N, channels, *size), float32."""
    torch.manual_seed(seed)
    conv = _conv(point)
    ins = point.channels * point.columns
    if not point.between:
        return _Siblings(conv).eval(), tuple(
            torch.rand(point.batch, ins, *point.size) for _ in range(point.siblings)
        )
    dense: Any = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[point.dim - 1]
    around = {"kernel_size": point.between, "padding": point.between // 2}
    before, behind = dense(3, ins, **around), dense(point.channels * point.rows, 8, **around)
    return nn.Sequential(before, conv, behind).eval(), (torch.rand(point.batch, 3, *point.size),)


class _Siblings(nn.Module):
    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, *inputs: Tensor) -> Any:
        outputs = [self.conv(x) for x in inputs]
        return outputs[0] if len(outputs) == 1 else tuple(outputs)


def _conv(point: Point) -> nn.Module:
    groups = 1 if point.kind == "dense" else point.channels
    types: Any = {
        (1, False): nn.Conv1d, (2, False): nn.Conv2d, (3, False): nn.Conv3d,
        (1, True): nn.ConvTranspose1d, (2, True): nn.ConvTranspose2d,
    }  # fmt: skip
    ins, outs = point.channels * point.columns, point.channels * point.rows
    options = {} if point.transposed else {"padding_mode": point.mode}
    conv = types[point.dim, point.transposed](
        ins, outs, point.taps, stride=point.stride, dilation=point.dilation, padding=point.padding,
        groups=groups, bias=bool(point.bias), **options,
    )  # fmt: skip
    kernel = _kernel(point)
    if point.transposed:
        kernel = kernel.transpose(0, 1)
    first, second = (point.columns, point.rows) if point.transposed else (point.rows, point.columns)
    with torch.no_grad():
        if point.kind == "dense":
            conv.weight.zero_()
            for block in range(point.channels):
                at = slice(block * first, (block + 1) * first), slice(block * second, (block + 1) * second)
                conv.weight[at] = kernel
        else:
            conv.weight.copy_(kernel.repeat(point.channels, *[1] * (kernel.ndim - 1)))
        if point.bias == "shared":
            conv.bias.copy_(torch.rand(point.rows).repeat(point.channels))
    return conv


def _kernel(point: Point) -> Tensor:
    """A kernel (rows, columns, *taps) of small integers, so that its rank is exact."""
    shape = point.rows, point.columns, *point.taps
    if point.dim == 1 or not point.rank:
        return torch.randint(1, 9, shape).float() + torch.rand(shape)
    height, width = point.taps[-2:]
    products = (
        torch.randint(1, 9, (*shape[:2], height, 1)) * torch.randint(1, 9, (*shape[:2], 1, width))
        for _ in range(point.rank)
    )
    plane = sum(products, torch.zeros(*shape[:2], height, width))
    return plane if point.dim == 2 else torch.randint(1, 9, (*shape[:3], 1, 1)) * plane.unsqueeze(2)
