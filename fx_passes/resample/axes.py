"""What a site computes along each axis: up-sampling, a filter, down-sampling.

Let z be the input after three steps: ``pad`` samples of the padding mode are added, ``up - 1`` zeros follow
each sample, and zeros lie beyond both ends. Then output o of an axis is

    y[o] = sum over k of kernel[k] * z[o * down + k * dilation - shift]

A convolution of stride s has down = s. A transposed one has up = s, and its kernel is reversed. A Pad in
front, a Slice behind, or zeros that the model puts between samples change shift, extent, pad, up and down;
the form stays the same. (P. P. Vaidyanathan, Multirate Systems and Filter Banks, 1993, chapter 4; ``upfirdn``
in scipy.signal.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fx_passes.records import ConvGeometry


@dataclass(frozen=True)
class Axis:
    """One spatial axis of a resampling. All numbers are samples.

    Args:
        taps: length of the kernel.
        up, down, dilation: factors.
        shift: the distance from sample 0 to the left to tap 0 of output 0, after zeros are put in.
        extent: gives the length of the output: ``(n * up + extent) // down + 1``.
        pad: samples in front of and behind the input that the padding mode fills.

    Example:
        >>> Axis(taps=3, down=2, shift=1, extent=-1).size(8)  # kernel 3, stride 2, padding 1
        4
    """

    taps: int
    up: int = 1
    down: int = 1
    dilation: int = 1
    shift: int = 0
    extent: int = -1
    pad: tuple[int, int] = (0, 0)

    @property
    def span(self) -> int:
        """Samples from the first tap to the last."""
        return self.dilation * (self.taps - 1)

    @property
    def idle(self) -> bool:
        """Whether nothing is done along the axis."""
        return replace(self, dilation=1) == Axis(1)

    def last(self, length: int) -> int:
        """The last input sample that the last output reads, or that lies in front of it. From ``length`` on
        it is padding."""
        return ((self.size(length) - 1) * self.down + self.span - self.shift) // self.up

    def size(self, length: Any) -> Any:
        """Length of the output for an input of ``length`` (an int, or a symbolic size)."""
        return (length * self.up + self.extent) // self.down + 1


@dataclass(frozen=True)
class Resample:
    """A shared convolution with its surroundings. It computes each plane (one group of one batch item) alike.

    Args:
        axes: the spatial axes, outermost first.
        groups: groups of the convolution, or blocks of a block-diagonal one.
        rows, columns: output and input channels of a group.
        mode: how ``Axis.pad`` continues the input: ``"zeros"``, ``"reflect"``, ``"replicate"``,
            ``"circular"``.
        block_diagonal: the model also multiplies with the zeros outside the blocks.
        in_shape, out_shape: shapes of input and output; None is an open size.
        scale: a constant factor of the output.
        factors: another factor for the output of each group; none if they are all 1.
    """

    axes: tuple[Axis, ...]
    groups: int
    rows: int
    columns: int
    mode: str
    block_diagonal: bool
    in_shape: tuple[int | None, ...]
    out_shape: tuple[int | None, ...]
    scale: float = 1.0
    # Not in the text of a resampling, from which the keys of sites are made: plans of before have none.
    factors: tuple[float, ...] = field(default=(), repr=False)
    # Of an output with open sizes, the sizes in front of its axes: a number; ``~i`` for the size of axis i of
    # the input; None for the one that is left. Empty: those of the input, with the channels of the output.
    leading: tuple[int | None, ...] = field(default=(), repr=False)
    # It is several convolutions of the model in a row, of which the kernel is the product.
    composed: bool = field(default=False, repr=False)
    # The model has a convolution of three dimensions, of which it is a part.
    of_volume: bool = field(default=False, repr=False)

    @property
    def dim(self) -> int:
        return len(self.axes)

    @property
    def up(self) -> int:
        """The largest zero stuffing of any axis."""
        return max(axis.up for axis in self.axes)

    @property
    def static(self) -> bool:
        """All sizes are known."""
        return None not in (*self.in_shape, *self.out_shape)

    @property
    def planes(self) -> int | None:
        """How many planes there are, None where the batch size is open."""
        if not self.static:
            return None
        known = [size for size in self.in_shape if size is not None]
        return math.prod(known[: -self.dim]) // self.columns

    @property
    def outputs(self) -> int | None:
        """Elements of the output."""
        return math.prod(size for size in self.out_shape if size is not None) if self.static else None

    def times(self, count: int) -> Resample:
        """The resampling of ``count`` inputs, with their batches one after the other."""
        batches = [None if n is None else count * n for n in (self.in_shape[0], self.out_shape[0])]
        shapes = [(n, *s[1:]) for n, s in zip(batches, (self.in_shape, self.out_shape), strict=True)]
        return replace(self, in_shape=shapes[0], out_shape=shapes[1])

    def height_width(self) -> tuple[Axis, Axis]:
        """The two axes of a 2-D resampling; a 1-D one has height 1."""
        return (Axis(1), self.axes[0]) if self.dim == 1 else (self.axes[-2], self.axes[-1])


def resample_of(
    geometry: ConvGeometry,
    groups: int,
    rows: int,
    columns: int,
    block_diagonal: bool,
    shapes: tuple[Sequence[int | None], Sequence[int | None]],
) -> Resample:
    """What a convolution computes by itself, without its surroundings.

    Args:
        shapes: the shapes of its input and output.
    """
    axes = []
    for axis in range(geometry.dim):
        taps, stride = geometry.kernel[axis], geometry.stride[axis]
        dilation = geometry.dilation[axis]
        low, high = _padding(geometry, axis)
        span = dilation * (taps - 1)
        if geometry.transposed:
            extra = geometry.output_padding[axis]
            extent = span + extra - stride - low - high
            axes.append(Axis(taps, stride, 1, dilation, span - low, extent))
        else:
            pad = (0, 0) if geometry.padding_mode == "zeros" else (low, high)
            axes.append(Axis(taps, 1, stride, dilation, low, low + high - span - 1, pad))
    mode = geometry.padding_mode
    shape_in, shape_out = (tuple(shape) for shape in shapes)
    return Resample(tuple(axes), groups, rows, columns, mode, block_diagonal, shape_in, shape_out)


def _padding(geometry: ConvGeometry, axis: int) -> tuple[int, int]:
    if isinstance(geometry.padding, str):
        total = geometry.dilation[axis] * (geometry.kernel[axis] - 1) if geometry.padding == "same" else 0
        return total // 2, total - total // 2  # torch puts the odd one at the end
    return geometry.padding[axis], geometry.padding[axis]


def absorb_before(axis: Axis, length: int, moved: Moved) -> Axis:
    """``axis``, if it reads what ``moved`` makes of an input of ``length`` samples."""
    return replace(
        axis,
        up=axis.up * moved.up,
        shift=axis.shift + moved.first * axis.up,
        extent=axis.extent + (moved.length - length * moved.up) * axis.up,
        pad=moved.pad if moved.pad != (0, 0) else axis.pad,
    )


def absorb_after(axis: Axis, length: int, first: int, step: int, count: int) -> Axis:
    """``axis``, if only the outputs first, first + step, ... are kept (``count`` of them)."""
    down = axis.down * step
    return replace(
        axis,
        shift=axis.shift - first * axis.down,
        down=down,
        extent=(count - 1) * down - length * axis.up,
    )


@dataclass(frozen=True)
class Moved:
    """What a movement of data does to an axis. Sample i goes to place ``first + i * up`` of ``length``
    places; the others are padding.

    ``pad`` counts the places that a mode other than zeros fills.
    """

    up: int
    first: int
    length: int
    pad: tuple[int, int] = (0, 0)


def transposed_padding(axis: Axis) -> tuple[int, int]:
    """``padding`` and ``output_padding`` of the transposed convolution of stride ``up`` that an axis is."""
    padding = axis.span - axis.shift
    return padding, axis.extent - axis.span + axis.up + 2 * padding
