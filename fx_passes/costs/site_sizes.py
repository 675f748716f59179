"""A site as plain numbers. The static rules look at nothing else."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

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
        depth: the axis in front of the height, of a site of three dimensions.
        depths: the sizes of input and output along it.
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
    depth: Axis = field(default_factory=lambda: Axis(1))
    depths: tuple[int, int] = (1, 1)

    @property
    def planes(self) -> int:
        return self.items * self.groups

    @property
    def read(self) -> int:
        """Elements of the input."""
        return self.planes * self.columns * math.prod(self.inputs) * self.depths[0]

    @property
    def written(self) -> int:
        """Elements of the output."""
        return self.planes * self.rows * math.prod(self.outputs) * self.depths[1]

    @property
    def up(self) -> int:
        return max(self.depth.up, self.height.up, self.width.up)

    def as_planes(self, depth: int) -> Sizes:
        """The planes of a volume, ``depth`` of them for each channel."""
        items = self.items * depth
        return replace(self, dim=2, items=items, depth=Axis(1), depths=(1, 1), own_bias=False)

    def as_lines(self, size: tuple[int, int]) -> Sizes:
        """The lines along the depth of a volume with planes of ``size``, as columns of one plane."""
        places, (before, after) = math.prod(size), self.depths
        return replace(
            self, dim=2, height=self.depth, width=Axis(1), inputs=(before, places), outputs=(after, places),
            depth=Axis(1), depths=(1, 1), own_bias=False,
        )  # fmt: skip


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
    depth, depths = Axis(1), (1, 1)
    if dim == 3:
        depth = resample.axes[0]
        depths = spatial[0], max(depth.size(spatial[0]), 1)
    items = max(leading // (resample.groups * resample.columns), 1)
    return Sizes(
        dim, items, resample.groups, resample.rows, resample.columns, resample.block_diagonal,
        *height_width, inputs, (height, width), padded, resample.up > 1 and not transposed, own_bias,
        resample.static, depth, depths,
    )  # fmt: skip
