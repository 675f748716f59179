"""A site computed in another way: a module that takes the input of the site and gives its output.

``Lowered`` has what all ways share, for any number of axes: the bias and the shape of the output. ``compute``
differs. ``windowed.py`` has what the ways share that read windows, and ``planar.py`` those of one and two
axes. ``volume.py`` computes three axes by two such modules. Kernels and values derived from them are buffers,
so a lowered model is for inference.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fx_passes.resample.axes import Resample


class Lowered(nn.Module):
    """Base of all modules that compute a site.

    Args:
        resample: what the site computes.
        kernel: (rows, columns, *taps) of one group, in the type and on the device of the input.
        bias: (rows,) for every group, (groups * rows,) for all channels, or None.
    """

    bias: Tensor | None
    channel_scales: Tensor
    writes_nothing = True  # as ``graph.writes`` asks
    key = ""  # of the sites that this module computes, see ``lower.Site``
    finishes = False  # whether ``compute`` gives the output in its shape, if sizes are open

    def __init__(self, resample: Resample, kernel: Tensor, bias: Tensor | None, **params: Any) -> None:
        super().__init__()
        self.resample = resample
        self.dtype = kernel.dtype
        self.params = params
        if resample.factors:
            scales = torch.tensor(resample.factors, dtype=torch.float64).repeat_interleave(resample.rows)
            self.register_buffer("channel_scales", scales.to(kernel), persistent=False)
            if bias is not None and bias.numel() == resample.rows:
                bias = bias.repeat(resample.groups)
        self.bias_shared = bias is not None and bias.numel() == resample.rows
        scaled = None if bias is None else (bias.detach().double() * resample.scale).to(kernel.dtype)
        self.register_buffer("bias", scaled, persistent=False)

    def compute(self, x: Tensor) -> Tensor:
        """The input of the site -> the elements of the output, in its order. A bias that serves all channels
        alike is in it; another one is not."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """The input of the site -> its output."""
        resample = self.resample
        if resample.static and tuple(x.shape) != resample.in_shape:
            raise ValueError(f"lowered for inputs of shape {resample.in_shape}, got {tuple(x.shape)}")
        y = self.compute(x)
        finished = tuple(y.shape) == resample.out_shape if resample.static else self.finishes
        own_bias = None if self.bias_shared else self.bias
        if own_bias is not None or resample.factors:
            by_channel = (-1, *[1] * resample.dim)
            y = y.reshape(-1, resample.groups * resample.rows, *self.out_sizes(x))
            if resample.factors:
                y = y * self.channel_scales.reshape(by_channel)
            if own_bias is not None:
                y = y + own_bias.reshape(by_channel)
            finished = resample.static and tuple(y.shape) == resample.out_shape
        if not finished:
            y = y.reshape(self.out_shape(x))
        return y.contiguous()

    def out_sizes(self, x: Tensor) -> tuple[Any, ...]:
        """Sizes of the output along the axes, outermost first."""
        axes = self.resample.axes
        return tuple(axis.size(size) for axis, size in zip(axes, x.shape[-len(axes) :], strict=True))

    def out_shape(self, x: Tensor) -> tuple[Any, ...]:
        """Shape of the output, open sizes included."""
        resample = self.resample
        if resample.static:
            return tuple(size for size in resample.out_shape if size is not None)
        if resample.leading:
            leading = [-1 if n is None else n if n >= 0 else x.shape[~n] for n in resample.leading]
        else:
            leading = [*x.shape[: -resample.dim - 1], resample.groups * resample.rows]
        return (*leading, *self.out_sizes(x))
