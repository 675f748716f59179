"""What the ways to compute a site of one or two dimensions share: the input as planes, and the padding.

A 1-D site is computed with a height of 1. Each file in ``lowerings/`` has its ``prepare`` and ``compute``.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fx_passes.kernels.factor import factorise
from fx_passes.lowerings.forms.base import Lowered
from fx_passes.lowerings.forms.windows import Windows
from fx_passes.resample.axes import Axis, Resample


class Planar(Lowered):
    """Base of the modules in ``lowerings/``.

    Args:
        resample: what the site computes, of one or two dimensions.
        kernel: (rows, columns, *taps) of one group, in the order of a correlation.
        bias: (rows,) for every group, (groups * rows,) for all channels, or None.
    """

    windows: tuple[Windows, Windows]  # along height and width, of a lowering that computes in blocks

    def __init__(self, resample: Resample, kernel: Tensor, bias: Tensor | None, **params: Any) -> None:
        super().__init__(resample, kernel, bias, **params)
        self.height, self.width = resample.height_width()
        # Known lengths of the input, or None. torch.compile takes an open size for an int.
        self.lengths = (1, resample.in_shape[-1]) if resample.dim == 1 else resample.in_shape[-2:]
        self.unscaled = kernel.detach()
        self.prepare(self.two_dimensional(self.unscaled))
        del self.unscaled

    def prepare(self, kernel: Tensor) -> None:
        """Derive the buffers from ``kernel``, (rows, columns, kh, kw)."""
        raise NotImplementedError

    # What the ways to compute build on.

    def keep(self, name: str, value: Tensor, channels_last: bool = False) -> None:
        """Keep a constant (T, 1, kh, kw). With a channels-last kernel, torch also writes the output
        channels-last."""
        if channels_last:
            value = value.as_strided(value.shape, (value[0].numel(), 1, value.shape[3], 1))
        self.register_buffer(name, value, persistent=False)

    def two_dimensional(self, kernel: Tensor) -> Tensor:
        """The kernel times the scale, in float64. A 1-D kernel gets a height of 1."""
        kernel = kernel.double() * self.resample.scale
        return kernel.unsqueeze(2) if self.resample.dim == 1 else kernel

    def factors(self, rank: int) -> list[tuple[Tensor, Tensor]]:
        """The products (column, row) whose sum is the kernel, as ``propose`` found them, times the scale."""
        kernel = self.unscaled[0, 0]
        pairs = factorise(kernel, rank)
        assert pairs is not None
        return [(column, row * self.resample.scale) for column, row in pairs]

    def planes(self, x: Tensor) -> Tensor:
        """(N * groups, columns, H, W)."""
        return self._regrouped(x, self.resample.columns)

    def _regrouped(self, x: Tensor, channels: int) -> Tensor:
        """(items, channels, H, W). With open sizes the items are counted: where a length is zero, they do not
        follow from the rest."""
        dim = self.resample.dim
        items = -1 if self.resample.static else math.prod(x.shape[:-dim]) // channels
        return x.reshape(items, channels, *((1,) if dim == 1 else ()), *x.shape[-dim:])

    def channels(self, x: Tensor, groups: int | None = None) -> Tensor:
        """(N, groups * columns, H, W). By default, ``groups`` are those of the site.

        An input that has this shape already is returned as it is: a runtime takes a Reshape for the end of a
        chain of convolutions.
        """
        channels = (self.resample.groups if groups is None else groups) * self.resample.columns
        if self.resample.dim == 2 and x.ndim == 4 and self.resample.in_shape[1] == channels:
            return x
        return self._regrouped(x, channels)

    def sizes(self, x: Tensor) -> tuple[Any, Any]:
        """Height and width of the output."""
        return (1, *self.out_sizes(x))[-2:]  # type: ignore[return-value]

    def finished(self, y: Tensor, x: Tensor) -> Tensor:
        """(planes, H, W) in the shape of the output, without the outputs of the last block that do not exist.

        The cut is the last step, in the shape of the output: there, a runtime that has to copy has copied
        already.

        Args:
            x: the input of the site.
        """
        dim = self.resample.dim
        if self.resample.static:
            return self.cut(y, *self.sizes(x))
        shape = self.out_shape(x)
        y = y.reshape(*shape[:-dim], *y.shape[-dim:])
        pairs = zip((self.height, self.width), self.windows, strict=True)
        for place, (axis, windows) in [*enumerate(pairs, start=-2)][-dim:]:
            if not windows.fill(axis):
                y = _first(y, place, shape[place])
        return y

    def cut(self, y: Tensor, height: Any, width: Any) -> Tensor:
        """(N, channels, H, W) of (planes, H, W), without the outputs of the last block that do not exist."""
        resample = self.resample
        y = y.reshape(-1, resample.groups * resample.rows, *y.shape[-resample.dim :])
        for dim, size in ((-2, height), (-1, width))[-self.resample.dim :]:
            if y.shape[dim] != size:
                y = y.narrow(dim, 0, size)
        return y

    def blocks(self, x: Tensor) -> tuple[Any, Any]:
        """Blocks of outputs along height and width."""
        sizes = zip(self.sizes(x), self.windows, strict=True)
        return tuple((size + one.count - 1) // one.count for size, one in sizes)  # type: ignore[return-value]

    def windowed(self, x: Tensor) -> Tensor:
        """(planes, columns, H, W): what all windows read of the input ``x`` of the site."""
        height, width = self.windows
        if self.resample.static:
            down, across = self.blocks(x)
            return self.window(
                self.planes(x), (height.first, height.read(down)), (width.first, width.read(across))
            )
        x = self.planes(x)
        pairs = zip((self.height, self.width), self.windows, strict=True)
        (top, bottom), (left, right) = ((-one.first, one.behind(axis)) for axis, one in pairs)
        # A window may end before the input does. What is computed in excess is cut off.
        return self.padded(x, (top, max(bottom, 0)), (left, max(right, 0)))

    def window(self, x: Tensor, height: tuple[Any, Any], width: tuple[Any, Any]) -> Tensor:
        """``count`` samples of each axis of ``x`` (..., H, W), from ``first`` on. Samples outside of the
        input are padding.

        Args:
            height, width: (first, count); first is negative if the window begins in the padding.
        """
        pairs = zip((height, width), x.shape[-2:], strict=True)
        down, across = ((-first, first + count - size) for (first, count), size in pairs)
        return self.padded(x, down, across)

    def padded(self, x: Tensor, height: tuple[Any, Any], width: tuple[Any, Any]) -> Tensor:
        """``x`` (..., H, W) with samples of padding in front of and behind each axis; negative: fewer
        samples."""
        pads: list[tuple[Any, Any]] = []
        continued: list[tuple[Any, Any]] = []
        pairs = zip((height, width), self.lengths, (self.height, self.width), strict=True)
        for (low, high), size, axis in pairs:
            by_mode = self._by_mode(axis, low, high, size)
            continued.append(by_mode)
            pads.append((low - by_mode[0], high - by_mode[1]))
        if self.resample.mode != "zeros" and any(pair != (0, 0) for pair in continued):
            x = F.pad(x, (*continued[1], *continued[0]), mode=self.resample.mode)
        if any(pair != (0, 0) for pair in pads):
            x = F.pad(x, (*pads[1], *pads[0]))
        return x

    def _by_mode(self, axis: Axis, low: int, high: int, size: int | None) -> tuple[int, int]:
        """How much of the padding of a window the mode fills. It fills what is read. Where it makes no
        difference it fills everything, so that there is only one Pad."""
        if self.resample.mode == "zeros" or axis.pad == (0, 0):
            return axis.pad
        if size is None:
            return (min(axis.pad[0], max(low, 0)), min(axis.pad[1], max(high, 0)))
        most = {"reflect": size - 1, "circular": size}.get(self.resample.mode, max(low, high, 0))
        # Samples beyond the padding that no output of the site uses may have any finite value.
        last = (axis.size(size) - 1) * axis.down + axis.span - axis.shift
        unused = last // axis.up - (size - 1) <= axis.pad[1]
        return min(axis.pad[0], max(low, 0)), high if unused and 0 <= high <= most else min(
            axis.pad[1], max(high, 0)
        )


def _first(y: Tensor, dim: int, count: Any) -> Tensor:
    """The first ``count`` elements along a dimension, of which there may be more.

    Whether a slice leaves any out, torch.compile would ask, and compile again for the other answer.
    """
    if torch.compiler.is_dynamo_compiling():
        return y.index_select(dim, torch.arange(count, device=y.device))
    return y.narrow(dim, 0, count)
