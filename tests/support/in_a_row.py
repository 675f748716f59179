"""Two convolutions in a row: forms that are one site, and forms that are not."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Function = Callable[[Tensor], Tensor]


def kernel(*taps: int, channels: int = 3) -> Tensor:
    numbers = torch.rand(taps, generator=torch.Generator().manual_seed(sum(taps))) + 0.1
    return (numbers / numbers.sum()).repeat(channels, 1, *[1] * len(taps))


ROW, COLUMN, BIAS = kernel(1, 7), kernel(5, 1), torch.tensor([0.5]).repeat(3)
SQUARE = kernel(3, 3)
UP_ROW, UP_COLUMN = kernel(1, 6), kernel(4, 1)
SIX_COLUMNS, SIX_BIASES = kernel(5, 1, channels=6), torch.arange(6.0)
DEEP, HIGH, WIDE = kernel(3, 1, 1), kernel(1, 5, 1), kernel(1, 1, 7)


def _in_mode(mode: str) -> Function:
    def blur(x: Tensor) -> Tensor:
        x = F.conv2d(F.pad(x, (3, 3, 0, 0), mode=mode), ROW, groups=3)
        return F.conv2d(F.pad(x, (0, 0, 2, 2), mode=mode), COLUMN, groups=3)

    return blur


def _volume(x: Tensor) -> Tensor:
    x = F.conv3d(x, DEEP, padding=(1, 0, 0), groups=3)
    x = F.conv3d(x, HIGH, padding=(0, 2, 0), groups=3)
    return F.conv3d(x, WIDE, padding=(0, 0, 3), groups=3)


def rows(x: Tensor) -> Tensor:
    return F.conv2d(x, ROW, groups=3)


def columns(x: Tensor) -> Tensor:
    return F.conv2d(x, COLUMN, groups=3)


# By name: the shape of the input, and what is one site.
FORMS: dict[str, tuple[tuple[int, ...], Function]] = {
    "zeros": (
        (2, 3, 11, 20),
        lambda x: F.conv2d(F.conv2d(x, ROW, padding=(0, 3), groups=3), COLUMN, padding=(2, 0), groups=3),
    ),
    "no padding": ((2, 3, 11, 20), lambda x: F.conv2d(F.conv2d(x, COLUMN, groups=3), ROW, groups=3)),
    "reflect": ((2, 3, 11, 20), _in_mode("reflect")),
    "replicate": ((2, 3, 11, 20), _in_mode("replicate")),
    "one mode and zeros": (
        (2, 3, 11, 20),
        lambda x: F.conv2d(
            F.conv2d(F.pad(x, (3, 3, 0, 0), mode="reflect"), ROW, groups=3), COLUMN, groups=3
        ),
    ),
    "strides and a bias": (
        (2, 3, 12, 20),
        lambda x: F.conv2d(
            F.conv2d(x, ROW, stride=(1, 2), padding=(0, 3), groups=3),
            COLUMN, BIAS, stride=(3, 1), padding=(2, 0), dilation=(2, 1), groups=3,
        ),
    ),
    "up": (
        (2, 3, 6, 9),
        lambda x: F.conv_transpose2d(
            F.conv_transpose2d(x, UP_ROW, stride=(1, 2), padding=(0, 2), groups=3),
            UP_COLUMN, stride=(2, 1), padding=(1, 0), groups=3,
        ),
    ),
    "up and down": (
        (2, 3, 6, 12),
        lambda x: F.conv_transpose2d(
            F.conv2d(x, ROW, stride=(1, 2), padding=(0, 3), groups=3),
            UP_COLUMN, stride=(2, 1), padding=(1, 0), groups=3,
        ),
    ),
    "scaled": (
        (2, 3, 11, 20),
        lambda x: F.conv2d(F.conv2d(x, ROW, groups=3) * 4.0, COLUMN, groups=3) * 0.5,
    ),
    "other groups": (
        (2, 3, 11, 20),
        lambda x: F.conv2d(
            F.conv2d(x, ROW, groups=3).reshape(1, 6, *x.shape[2:-1], -1), SIX_COLUMNS, SIX_BIASES, groups=6
        ),
    ),
    "planes in the batch": (
        (2, 3, 11, 20),
        lambda x: F.conv2d(
            F.conv2d(x.reshape(-1, 1, *x.shape[2:]), ROW[:1]), COLUMN[:1], padding=(2, 0)
        ).reshape(*x.shape[:3], -1),
    ),
    "a volume": ((1, 3, 6, 8, 18), _volume),
    "the same axis": ((2, 3, 11, 20), lambda x: rows(rows(x))),
    "the same axes": (
        (2, 3, 11, 20),
        lambda x: F.conv2d(F.conv2d(x, SQUARE, padding=(2, 0), groups=3), SQUARE, BIAS, groups=3),
    ),
    "strides that meet": (
        (2, 3, 21, 34),
        lambda x: F.conv2d(
            F.conv2d(x, SQUARE, stride=2, padding=1, groups=3), SQUARE, stride=(2, 3), groups=3
        ),
    ),
    "steps with a common factor": (
        (2, 3, 21, 34),
        lambda x: F.conv2d(
            F.conv2d(x, SQUARE, stride=(2, 1), dilation=(4, 2), groups=3), SQUARE, stride=2, dilation=(1, 2),
            groups=3,
        ),
    ),
    "up, and a filter behind": (
        (2, 3, 6, 12),
        lambda x: F.conv2d(
            F.conv_transpose2d(x, UP_ROW, stride=(1, 2), padding=(0, 2), groups=3), ROW[..., :3], groups=3,
            stride=(1, 2),
        ),
    ),
    "reflect in front of both": (
        (2, 3, 11, 20),
        lambda x: rows(rows(F.pad(x, (6, 6, 0, 0), mode="reflect"))),
    ),
    "a part of what both give": (
        (2, 3, 11, 40),
        lambda x: F.conv2d(F.conv2d(x, ROW, stride=(1, 2), groups=3), ROW, stride=(1, 2), groups=3)[..., 1:],
    ),
    "a part of what the first gives": ((2, 3, 11, 40), lambda x: rows(rows(x)[..., 3:-2])),
}  # fmt: skip


OTHER = kernel(5, 1) + 1
FAINT_ROW, FAINT_COLUMN = ROW * 1e-25, COLUMN * 1e-25
PADDED_ROW, PADDED_COLUMN = (3, 3, 0, 0), (0, 0, 2, 2)
# By the reason: two sites that are not one.
APART: dict[str, Callable[[Tensor], object]] = {
    "another reader": lambda x: columns(y := rows(x)) + y[:, :, 4:],
    "an output": lambda x: (columns(y := rows(x)), y),
    "something between": lambda x: columns(rows(x).relu()),
    "a bias of the first": lambda x: columns(F.conv2d(x, ROW, BIAS, groups=3)),
    "padding of the same axis": lambda x: F.conv2d(rows(x), ROW, padding=(0, 1), groups=3),
    "padding in front of the same axis": lambda x: rows(F.pad(rows(x), (1, 0))),
    "padding behind the same axis": lambda x: rows(F.pad(rows(x), (0, 1))),
    "more products than before": lambda x: rows(F.conv2d(x, ROW, stride=(1, 2), groups=3)),
    "zeros in between": lambda x: F.conv_transpose2d(
        rows(x), UP_ROW, stride=(1, 2), padding=(0, 5), groups=3
    ),
    "one axis, then two": lambda x: F.conv2d(
        F.conv1d(x.flatten(2), ROW[:, :, 0], padding=3, groups=3).reshape(x.shape), COLUMN, groups=3
    ),
    "two modes": lambda x: columns(
        F.pad(rows(F.pad(x, PADDED_ROW, mode="reflect")), PADDED_COLUMN, mode="replicate")
    ),
    "a product without numbers": lambda x: F.conv2d(F.conv2d(x, FAINT_ROW, groups=3), FAINT_COLUMN, groups=3),
    "two readers of a Pad": lambda x: (
        columns(y := F.pad(rows(x), PADDED_COLUMN)) + F.conv2d(y, OTHER, groups=3)
    ),
}
