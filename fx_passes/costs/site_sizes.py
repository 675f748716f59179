"""A site as plain numbers. The static rules look at nothing else."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fx_passes.resample.axes import Axis, Resample


@dataclass(frozen=True)
class Sizes:
    """A site as numbers. A 1-D site has a height of 1.

    Args:
        dim: spatial dimensions of the site.
        items: batch items.
        groups, rows, columns: groups, and output and input channels of each.
        dense: the model has a dense convolution with a block-diagonal weight.
        height, width: the axes.
        inputs, outputs: (height, width).
        padded: something other than zeros continues the input, which takes a Pad.
        stuffed: the model puts zeros between samples, and has an ordinary convolution.
        own_bias: each channel has its own bias.
        known: no size is open in the model.
    """

    dim: int
    items: int
    groups: int
    rows: int
    columns: int
    dense: bool
    height: Axis
    width: Axis
    inputs: tuple[int, int]
    outputs: tuple[int, int]
    padded: bool
    stuffed: bool
    own_bias: bool
    known: bool = True

    @property
    def planes(self) -> int:
        return self.items * self.groups

    @property
    def read(self) -> int:
        """Elements of the input."""
        return self.planes * self.columns * self.inputs[0] * self.inputs[1]

    @property
    def written(self) -> int:
        """Elements of the output."""
        return self.planes * self.rows * self.outputs[0] * self.outputs[1]

    @property
    def up(self) -> int:
        return max(self.height.up, self.width.up)


def sizes_of(
    resample: Resample, *, own_bias: bool, transposed: bool, shape: Sequence[int | None] | None = None
) -> Sizes:
    """The sizes of a site.

    Args:
        resample: what the site computes.
        own_bias, transposed: as in :class:`Sizes`.
        shape: of the input. None: that of ``resample``, which is known.
    """
    dim, height_width = resample.dim, resample.height_width()
    known = [int(size or 1) for size in (resample.in_shape if shape is None else shape)]
    spatial, leading = known[-dim:], math.prod(known[:-dim])
    inputs = (1, spatial[0]) if dim == 1 else (spatial[-2], spatial[-1])
    height, width = (max(axis.size(n), 1) for axis, n in zip(height_width, inputs, strict=True))
    padded = resample.mode != "zeros" and any(axis.pad != (0, 0) for axis in resample.axes)
    items = max(leading // (resample.groups * resample.columns), 1)
    return Sizes(
        dim, items, resample.groups, resample.rows, resample.columns, resample.block_diagonal,
        *height_width, inputs, (height, width), padded, resample.up > 1 and not transposed, own_bias,
        resample.static,
    )  # fmt: skip
