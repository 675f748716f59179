"""Models that can be lowered and take an image or other values, and how a call of them is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn


def image(*shape: int) -> Tensor:
    return torch.rand(shape or (2, 3, 32, 40))


class Blurred(nn.Module):
    """It has a blur that can be lowered. Models that take other inputs derive from it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Buffer(torch.ones(1, 1, 9, 9).repeat(3, 1, 1, 1))

    def blur(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, padding=4, groups=3)


class OneImage(Blurred):
    def forward(self, x: Tensor) -> Tensor:
        return self.blur(x)


class Options(Blurred):
    """It takes values of every kind, by position."""

    def forward(self, x: Tensor, k: int, s: float, flag: bool, mode: str, none: Any) -> Tensor:
        y = self.blur(x) * k + s
        y = y + 100 if flag else y
        y = -y if mode == "minus" else y
        return y if none is None else y + none


OPTIONS = {"k": 2, "s": 0.5, "flag": True, "mode": "plus", "none": None}


def refusal(graph: nn.Module, *args: Any, **kwargs: Any) -> str:
    """The one line that a call is refused with."""
    with pytest.raises(ValueError) as raised:  # noqa: PT011 - the text is what is looked at
        graph(*args, **kwargs)
    assert "\n" not in str(raised.value)
    return str(raised.value)
