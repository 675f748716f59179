"""What the polyphase lowerings share: windows of the input, phases as channels, and their interleaving."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fx_passes.lowerings.forms.planar import Planar
from fx_passes.lowerings.forms.windows import phase_windows, single_windows
from fx_passes.resample.axes import Axis, Resample
from fx_passes.resample.phases import Phases, phase_weight, phases_of


class PolyphaseConv(Planar):
    """One dense convolution for all phases, or one for each phase of the height.

    Args:
        phases: how many outputs along the width are computed as channels.
        interleave: ``"split"`` or ``"stack"``, see ``lowerings/transposed_polyphase.py``.
    """

    weight: Tensor
    finishes = True

    def __init__(
        self,
        resample: Resample,
        kernel: Tensor,
        bias: Tensor | None,
        *,
        phases: int,
        interleave: str = "split",
    ) -> None:
        self.interleave, self.count = interleave, phases
        self.down, self.across = _phases(resample, phases)
        height = resample.height_width()[0]
        down = single_windows(height) if self.down is None else phase_windows(self.down)
        self.windows = down, phase_windows(self.across)
        # torch 2.13 on oneDNN computes channels-last convolutions of stride (1, s) wrongly if the output has
        # width 1. So the output must be known to be wider.
        width = resample.out_shape[-1]
        self.channels_last = resample.static and width is not None and width > phases
        super().__init__(resample, kernel, bias, phases=phases, interleave=interleave)

    def prepare(self, kernel: Tensor) -> None:
        weight = phase_weight(kernel[0, 0], self.across, 1)  # (kh, T, window)
        if self.down is not None:
            weight = phase_weight(weight, self.down, 0).transpose(1, 2)  # (s, T, window of rows, window)
        else:
            weight = weight.transpose(0, 1).unsqueeze(0)
        self.keep("weight", weight.flatten(0, 1).unsqueeze(1).to(self.dtype).contiguous(), self.channels_last)

    def compute(self, x: Tensor) -> Tensor:
        given, (stride, dilation) = self.windowed(x), self.steps()
        if self.down is None:
            y = F.conv2d(given, self.weight, self.full_bias(self.count), stride, 0, dilation)
            return self.finished(y.permute(0, 2, 3, 1).flatten(2, 3), x)
        if self.interleave == "stack":
            rows = [
                F.conv2d(given, weight, self.full_bias(self.count), stride, 0, dilation).permute(0, 2, 3, 1)
                for weight in self.weight.split(self.count)
            ]
        else:
            y = F.conv2d(given, self.weight, self.full_bias(self.weight.shape[0]), stride, 0, dilation)
            rows = list(y.permute(0, 2, 3, 1).split(self.count, 3))
        y = torch.cat(rows, 2)  # (planes, H / s, s * W / T, T) is (planes, H / s, s, W) in memory
        width = rows[0].shape[2] * self.count
        return self.finished(y.reshape(y.shape[0], y.shape[1] * len(rows), width), x)

    def steps(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Stride and dilation of the convolution that computes all phases."""
        dilation = self.height.dilation if self.down is None else 1
        return (self.windows[0].step, self.windows[1].step), (dilation, 1)

    def full_bias(self, channels: int) -> Tensor | None:
        """The bias of every phase, where one value serves all channels."""
        return self.bias.expand(channels) if self.bias is not None and self.bias_shared else None


class SeparablePolyphaseConv(PolyphaseConv):
    """The row in phases, then the column on each phase; the sum of ``rank`` such products.

    The rows of all products are one convolution, and so are their columns.
    """

    rank: int
    rows: Tensor
    columns: Tensor

    def prepare(self, kernel: Tensor) -> None:
        pairs = self.factors(self.rank)
        rows = torch.cat([phase_weight(row, self.across, 0) for _, row in pairs])
        columns = torch.cat([column.expand(self.count, -1) for column, _ in pairs])
        self.products = len(pairs)
        for name, value in (("rows", rows[:, None, None]), ("columns", columns[:, None, :, None])):
            self.keep(name, value.to(self.dtype).contiguous(), self.channels_last)

    def compute(self, x: Tensor) -> Tensor:
        (step, across), (dilation, _) = self.steps()
        y = F.conv2d(self.windowed(x), self.rows, None, (1, across))
        channels = self.count * self.products
        bias = self.full_bias(self.count)
        if bias is not None and self.products > 1:
            bias = torch.cat([bias, bias.new_zeros(channels - self.count)])
        y = F.conv2d(y, self.columns, bias, (step, 1), 0, (dilation, 1), channels)
        if self.products > 1:
            y = torch.stack(y.split(self.count, 1)).sum(0)
        return self.finished(y.permute(0, 2, 3, 1).flatten(2, 3), x)


def _phases(resample: Resample, count: int) -> tuple[Phases | None, Phases]:
    """The phases of the height, if zeros are put in there, and those of the width."""
    height, width = resample.height_width()
    across = phases_of(width, count)
    if across is None:
        raise ValueError(f"a block of {count} outputs does not begin on an input sample")
    return _height_phases(height), across


def _height_phases(height: Axis) -> Phases | None:
    return phases_of(height, height.up) if height.up > 1 else None
