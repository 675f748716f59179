"""What the ways to compute a site of one or two dimensions share: their kernel, and the input as planes.

A 1-D site is computed with a height of 1. Each file in ``lowerings/`` has its ``prepare`` and ``compute``.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from fx_passes.kernels.factor import factorise
from fx_passes.lowerings.forms.windowed import Windowed
from fx_passes.lowerings.forms.windows import Windows
from fx_passes.resample.axes import Resample


class Planar(Windowed):
    """Base of the modules in ``lowerings/`` for one and two dimensions.

    Args:
        resample: what the site computes, of one or two dimensions.
        kernel: (rows, columns, *taps) of one group, in the order of a correlation.
        bias: (rows,) for every group, (groups * rows,) for all channels, or None.
    """

    windows: tuple[Windows, Windows]  # along height and width, of a lowering that computes in blocks

    def __init__(self, resample: Resample, kernel: Tensor, bias: Tensor | None, **params: Any) -> None:
        super().__init__(resample, kernel, bias, **params)
        self.height, self.width = self.axes
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

    def channels(self, x: Tensor, groups: int | None = None) -> Tensor:
        """(N, groups * columns, H, W). By default, ``groups`` are those of the site.

        An input that has this shape already is returned as it is: a runtime takes a Reshape for the end of a
        chain of convolutions.
        """
        channels = (self.resample.groups if groups is None else groups) * self.resample.columns
        if self.resample.dim == 2 and x.ndim == 4 and self.resample.in_shape[1] == channels:
            return x
        return self.regrouped(x, channels)
