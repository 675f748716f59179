"""The form that four lowerings share: one grouped convolution, or one grouped transposed convolution.

``lift``, ``grouped``, ``fold_batch`` and ``fold_channels`` differ in what is a batch item, a channel and a
group. The kernel is stored once, and expanded to the groups as in ``kernels/expand.py``.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from fx_passes.kernels.expand import expand_kernel
from fx_passes.lowerings.forms.planar import Planar
from fx_passes.lowerings.forms.windows import single_windows
from fx_passes.resample.axes import Axis, transposed_padding


class GroupedConv(Planar):
    """One grouped convolution; subclasses say what a group is."""

    weight: Tensor

    def groups(self) -> int:
        """Groups of the convolution that is computed."""
        return self.resample.groups

    def prepare(self, kernel: Tensor) -> None:
        kernel = kernel.to(self.dtype)
        if self.resample.up > 1:
            kernel = kernel.transpose(0, 1).flip(2, 3)
        self.register_buffer("weight", kernel.contiguous(), persistent=False)

    def compute(self, x: Tensor) -> Tensor:
        resample, groups = self.resample, self.groups()
        x = self.channels(x, groups)
        axes = (self.height, self.width)
        weight = expand_kernel(self.weight, groups)
        bias = expand_kernel(self.bias, groups) if self.bias is not None and self.bias_shared else None
        dilation: Any = tuple(axis.dilation for axis in axes)
        if resample.up > 1:
            padding, extra = zip(*(transposed_padding(axis) for axis in axes), strict=True)
            up: Any = tuple(axis.up for axis in axes)
            return F.conv_transpose2d(x, weight, bias, up, padding, extra, groups, dilation)  # type: ignore[arg-type]
        down: Any = tuple(axis.down for axis in axes)
        x, padding = padded(self, x)
        return F.conv2d(x, weight, bias, down, padding, dilation, groups)  # type: ignore[arg-type]


def padded(module: Planar, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
    """Input and padding for a plain convolution. The convolution itself adds zeros, if there are equally many
    at both ends."""
    amounts: list[tuple[Any, Any]] = []
    own: list[int] = []
    for axis, size in zip((module.height, module.width), module.lengths, strict=True):
        equal = _pads_equally(axis, size)
        own.append(axis.shift if equal else 0)
        windows = single_windows(axis)
        # Behind an axis whose size is open, there may be more than is read, but not a whole step.
        if size is None:
            behind = windows.behind(axis)
        else:
            behind = windows.first + windows.read(axis.size(size)) - size
        amounts.append((0, 0) if equal else (axis.shift, behind))
    return module.padded(x, amounts[0], amounts[1]), (own[0], own[1])


def _pads_equally(axis: Axis, size: int | None) -> bool:
    """Whether equally many zeros at both ends give the right number of outputs."""
    if axis.pad != (0, 0) or axis.shift < 0:
        return False
    extent = 2 * axis.shift - axis.span - 1
    if size is None or axis.extent == extent:
        return axis.extent == extent
    return bool((size + extent) // axis.down + 1 == axis.size(size))
