"""Sites of many geometries, for the rules that choose their lowerings."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from fx_passes.resample.axes import Axis, Resample

AXIS = Axis(5, shift=2, extent=-1)
IMAGE = Resample((AXIS, AXIS), 3, 1, 1, "zeros", False, (1, 3, 64, 64), (1, 3, 64, 64))
SOUND = Resample((AXIS,), 32, 1, 1, "zeros", False, (1, 32, 400), (1, 32, 400))
RANK_1 = torch.ones(1, 1, 5, 5)


def random(*shape: int) -> Tensor:
    """The same numbers each time."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@dataclass(frozen=True)
class Place:
    """What a choice looks at in a site. A ``Site`` holds more, so places are passed on as ``Any``."""

    resample: Resample
    kernel: Tensor = field(default_factory=lambda: random(1, 1, 5, 5))
    id: str = "blur"
    key: str = "0a"
    bias: Tensor | None = None
    transposed: bool = False
    siblings: int = 1
    shapes: tuple[tuple[int, ...], ...] = ()
    parts: tuple[Any, ...] = ()


PLACES: dict[str, Any] = {
    "rank 1": Place(IMAGE, RANK_1),
    "any rank": Place(IMAGE),
    "16 groups": Place(replace(IMAGE, groups=16), RANK_1),
    "block-diagonal": Place(replace(IMAGE, block_diagonal=True)),
    "blocks": Place(replace(IMAGE, rows=2, columns=2), random(2, 2, 5, 5)),
    "transposed": Place(replace(IMAGE, axes=(replace(AXIS, up=2), replace(AXIS, up=2))), transposed=True),
    "sound": Place(SOUND, random(1, 1, 5)),
    "open": Place(replace(IMAGE, in_shape=(None, 3, 64, 64), out_shape=(None, 3, 64, 64)), RANK_1),
    "3-D": Place(replace(IMAGE, axes=(AXIS, AXIS, AXIS), in_shape=(1, 3, 16, 16, 16)), random(1, 1, 5, 5, 5)),
    "volume": Place(
        replace(IMAGE, axes=(AXIS, AXIS, AXIS), in_shape=(1, 3, 16, 64, 64)), torch.ones(1, 1, 5, 5, 5)
    ),
}


def conv(
    shape: tuple[int, ...],
    taps: tuple[int, ...],
    *,
    stride: tuple[int, ...] = (),
    rows: int = 1,
    columns: int = 1,
    dense: bool = False,
    rank: int = 1,
) -> Any:
    """A convolution of one kernel on (N, channels, *size), padded by half a kernel."""
    steps = stride or (1,) * len(taps)
    axes = tuple(Axis(n, 1, s, 1, n // 2, n // 2 * 2 - n) for n, s in zip(taps, steps, strict=True))
    sizes = tuple(axis.size(size) for axis, size in zip(axes, shape[2:], strict=True))
    groups = shape[1] // columns
    resample = Resample(axes, groups, rows, columns, "zeros", dense, shape, (shape[0], groups * rows, *sizes))
    kernel = torch.ones(rows, columns, *taps) if rank == 1 else random(rows, columns, *taps)
    return Place(resample, kernel)


def transposed(shape: tuple[int, ...], taps: tuple[int, ...], stride: int, rank: int = 1) -> Any:
    """A transposed convolution. Its output is ``stride`` times as large as its input."""
    shift = taps[0] - 1 - (taps[0] - stride) // 2
    axes = tuple(Axis(n, stride, 1, 1, shift, -1) for n in taps)
    out = (*shape[:2], *(axis.size(size) for axis, size in zip(axes, shape[2:], strict=True)))
    resample = Resample(axes, shape[1], 1, 1, "zeros", False, shape, out)
    kernel = torch.ones(1, 1, *taps) if rank == 1 else random(1, 1, *taps)
    return Place(resample, kernel, transposed=True)


# Sites that are worth lowering, and what they gain at least.
GAINS: dict[str, tuple[Any, float]] = {
    "blur 11x11": (conv((1, 3, 256, 256), (11, 11)), 5),
    "blur 31x31": (conv((1, 3, 512, 512), (31, 31)), 20),
    "pyramid": (conv((1, 3, 256, 256), (5, 5)), 2),
    "any rank 9x9": (conv((1, 3, 256, 256), (9, 9), rank=2), 1.5),
    "dense 64": (conv((1, 64, 64, 64), (4, 4), stride=(2, 2), dense=True), 4),
    "dense 256": (conv((1, 256, 64, 64), (4, 4), stride=(2, 2), dense=True), 8),
    "planes": (replace(conv((64, 1, 64, 64), (4, 4), stride=(2, 2)), kernel=torch.ones(1, 1, 4, 4)), 2),
    "bilinear": (transposed((1, 21, 64, 64), (16, 16), 8), 2),
    "any rank transposed": (transposed((1, 64, 64, 64), (12, 12), 2, rank=2), 2),
    "sound down": (conv((1, 64, 4000), (12,), stride=(2,)), 2),
    "sound up": (transposed((1, 64, 2000), (12,), 2), 2),
    "activation": (transposed((1, 512, 1000), (12,), 2), 2),
    "volume of any rank": (conv((1, 1, 32, 64, 64), (7, 7, 7), rank=2), 1.5),
}
