"""Models with one convolution that may be shared, and what is found in them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.nn.modules.conv import _ConvNd

from fx_passes import Finding, find_shared_kernels

Conv = TypeVar("Conv", bound=_ConvNd)
K = torch.randn(1, 1, 3, 3)


def repeat_first_group(conv: Conv) -> Conv:
    """Make every group of ``conv`` a copy of its first group."""
    rows = conv.weight.shape[0] // conv.groups
    repeats = [conv.groups] + [1] * (conv.weight.ndim - 1)
    conv.weight.data = conv.weight.data[:rows].repeat(repeats)
    if conv.bias is not None:
        conv.bias.data = conv.bias.data[: conv.out_channels // conv.groups].repeat(conv.groups)
    return conv


class Call(nn.Module):
    """A model that is one function of its input and of a parameter or buffer ``k``."""

    k: Tensor

    def __init__(
        self, function: Callable[[Any, Tensor], Tensor], k: Tensor, trainable: bool = False, **more: Tensor
    ) -> None:
        super().__init__()
        self.function = function
        self.k = nn.Parameter(k) if trainable else nn.Buffer(k)
        for name, tensor in more.items():
            self.register_buffer(name, tensor)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def only(model: nn.Module | ExportedProgram, *inputs: Tensor, tolerance: float = 0.0) -> Finding:
    """Return the one finding of a model with one candidate."""
    (finding,) = find_shared_kernels(model, inputs or None, tolerance=tolerance)
    return finding
