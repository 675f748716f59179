"""What the ways to compute a site share for any number of axes: the input as planes, windows of it with their
padding, and the outputs of whole blocks, cut to those that exist."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fx_passes.lowerings.forms.base import Lowered
from fx_passes.lowerings.forms.windows import Windows
from fx_passes.resample.axes import Axis, Resample


class Windowed(Lowered):
    """Base of the modules that read windows of an input. A 1-D site is computed with a height of 1.

    Args:
        resample, kernel, bias: as of ``Lowered``.
    """

    windows: tuple[Windows, ...]  # along each axis, of a lowering that computes in blocks

    def __init__(self, resample: Resample, kernel: Tensor, bias: Tensor | None, **params: Any) -> None:
        super().__init__(resample, kernel, bias, **params)
        self.axes = (Axis(1), *resample.axes) if resample.dim == 1 else resample.axes
        # Known lengths of the input, or None. torch.compile takes an open size for an int.
        self.lengths = (1, *resample.in_shape[-resample.dim :])[-len(self.axes) :]

    def planes(self, x: Tensor) -> Tensor:
        """(N * groups, columns, *lengths)."""
        return self.regrouped(x, self.resample.columns)

    def regrouped(self, x: Tensor, channels: int) -> Tensor:
        """(items, channels, *lengths). With open sizes the items are counted: where a length is zero, they do
        not follow from the rest."""
        dim = self.resample.dim
        items = -1 if self.resample.static else math.prod(x.shape[:-dim]) // channels
        return x.reshape(items, channels, *((1,) if dim == 1 else ()), *x.shape[-dim:])

    def sizes(self, x: Tensor) -> tuple[Any, ...]:
        """Lengths of the output."""
        return (1, *self.out_sizes(x))[-len(self.axes) :]

    def blocks(self, x: Tensor) -> tuple[Any, ...]:
        """Blocks of outputs along each axis."""
        sizes = zip(self.sizes(x), self.windows, strict=True)
        return tuple((size + one.count - 1) // one.count for size, one in sizes)

    def windowed(self, x: Tensor) -> Tensor:
        """(planes, columns, *lengths): what all windows read of the input ``x`` of the site."""
        if self.resample.static:
            pairs = zip(self.windows, self.blocks(x), strict=True)
            return self.window(self.planes(x), *((one.first, one.read(count)) for one, count in pairs))
        ends = ((-one.first, one.behind(axis)) for axis, one in zip(self.axes, self.windows, strict=True))
        # A window may end before the input does. What is computed in excess is cut off.
        return self.padded(self.planes(x), *((low, max(high, 0)) for low, high in ends))

    def window(self, x: Tensor, *windows: tuple[Any, Any]) -> Tensor:
        """``count`` samples of each axis of ``x`` (..., *lengths), from ``first`` on. Samples outside of the
        input are padding.

        Args:
            windows: (first, count) of each axis; first is negative if the window begins in the padding.
        """
        pairs = zip(windows, x.shape[-len(windows) :], strict=True)
        return self.padded(x, *((-first, first + count - size) for (first, count), size in pairs))

    def padded(self, x: Tensor, *ends: tuple[Any, Any]) -> Tensor:
        """``x`` (..., *lengths) with samples of padding in front of and behind each axis; negative: fewer
        samples."""
        pads: list[Any] = []
        continued: list[Any] = []
        for (low, high), size, axis in zip(ends, self.lengths, self.axes, strict=True):
            by_mode = self._by_mode(axis, low, high, size)
            # torch takes the last axis first.
            continued = [*by_mode, *continued]
            pads = [low - by_mode[0], high - by_mode[1], *pads]
        if self.resample.mode != "zeros" and any(continued):
            x = F.pad(x, continued, mode=self.resample.mode)
        if any(pads):
            x = F.pad(x, pads)
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

    def finished(self, y: Tensor, x: Tensor) -> Tensor:
        """(planes, *lengths) in the shape of the output, without the outputs of the last block that do not
        exist.

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
        pairs = zip(self.axes, self.windows, strict=True)
        for place, (axis, windows) in [*enumerate(pairs, start=-len(self.axes))][-dim:]:
            if not windows.fill(axis):
                y = _first(y, place, shape[place])
        return y

    def cut(self, y: Tensor, *sizes: Any) -> Tensor:
        """(N, channels, *sizes) of (planes, *lengths), without the outputs of the last block that do not
        exist."""
        resample = self.resample
        y = y.reshape(-1, resample.groups * resample.rows, *y.shape[-resample.dim :])
        for dim, size in [*enumerate(sizes, start=-len(sizes))][-resample.dim :]:
            if y.shape[dim] != size:
                y = y.narrow(dim, 0, size)
        return y


def _first(y: Tensor, dim: int, count: Any) -> Tensor:
    """The first ``count`` elements along a dimension, of which there may be more.

    Whether a slice leaves any out, torch.compile would ask, and compile again for the other answer.
    """
    if torch.compiler.is_dynamo_compiling():
        return y.index_select(dim, torch.arange(count, device=y.device))
    return y.narrow(dim, 0, count)
