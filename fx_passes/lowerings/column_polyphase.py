"""A kernel of rank 1: T neighbouring outputs along the height as channels, then the row on each channel.

Before:  conv(x (N, C, H, W), expand(column * row), groups=C)
After:   conv(x (N * C, 1, H, W), weight (T, 1, window, 1), stride (T * sh, 1)), conv(..., row, groups=T),
         then the T rows of each block put in order

This is ``separable_polyphase`` with the axes exchanged. That one has the width in order at the end at no
cost; here the rows must be put in order. But its second pass reads a column, whose samples are a line of the
image apart. This one reads a row, whose samples are neighbours in memory. It wins where the lines of the
image do not fit the first-level cache. (``resample/phases.py``, ``kernels/factor.py``)
"""

from __future__ import annotations

from collections import Counter

import torch
import torch.nn.functional as F
from torch import Tensor

from fx_passes.costs import shared_parts as parts
from fx_passes.costs.operator_times import Work, depthwise, moved, one_to_many
from fx_passes.costs.site_sizes import Sizes
from fx_passes.lowerings.forms.planar import Planar
from fx_passes.lowerings.forms.refusals import (
    polyphase_refusal,
    refuse,
    separable_refusal,
    transposed_refusal,
)
from fx_passes.lowerings.forms.windows import phase_windows, single_windows
from fx_passes.records import Proposal, Refusal
from fx_passes.resample.axes import Resample
from fx_passes.resample.phases import phase_weight, phases_of

# It computes lines along the depth of a volume (``forms/volume.py``).
ALONG_LINES = True


def propose(resample: Resample, kernel: Tensor) -> list[Proposal] | Refusal:
    """16 phases."""
    if refusal := polyphase_refusal(resample) or separable_refusal(resample, kernel, lines=True):
        return refusal
    if resample.up > 1:
        return transposed_refusal()
    if kernel.shape[2] == 1:
        return refuse("line", "the kernel is a row")
    return [Proposal("column_polyphase", (("phases", 16),), "finite")]


def work(site: Sizes, params: parts.Params, block: int) -> Work:
    """What onnxruntime does for it; args as in ``costs/shared_parts.py``."""
    count, down = params["phases"], parts.phases(site.height, params["phases"])
    blocks = -(-site.outputs[0] // count)
    wide = (site.outputs[1] - 1) * site.width.down + site.width.span + 1
    columns = one_to_many(site.planes, (1, count), (blocks, wide), (down.window, 1), block)
    rows: Work = Counter()
    if not site.width.idle:
        rows = depthwise(site.planes, count, (blocks, site.outputs[1]), (1, site.width.taps), block)
    return (
        moved(site.planes * wide * blocks * down.step)
        + columns
        + rows
        + moved(site.written)
        + parts.tail(site, 1)
    )


class Module(Planar):
    """``phases`` outputs of the height at a time."""

    column: Tensor
    row: Tensor
    order: Tensor
    finishes = True

    def __init__(self, resample: Resample, kernel: Tensor, bias: Tensor | None, *, phases: int) -> None:
        down = phases_of(resample.height_width()[0], phases)
        assert down is not None  # as nothing is stuffed in between
        self.phases = down
        self.windows = phase_windows(down), single_windows(resample.height_width()[1])
        super().__init__(resample, kernel, bias, phases=phases)

    def prepare(self, kernel: Tensor) -> None:
        column, row = self.factors(1)[0]
        if self.width.idle:
            column = column * row
        column = phase_weight(column, self.phases, 0)[:, None, :, None].to(self.dtype)
        self.keep("column", column.contiguous(), channels_last=True)
        if not self.width.idle:
            row = row.to(self.dtype).expand(self.phases.count, 1, 1, -1)
            self.keep("row", row.contiguous(), channels_last=True)
        if self.resample.static:
            count, height = self.phases.count, self.resample.out_shape[-2] or 0
            output = torch.arange(height)
            self.keep("order", output % count * -(-height // count) + output // count)

    def compute(self, x: Tensor) -> Tensor:
        across, count = self.width, self.phases.count
        bias = self.bias.expand(count) if self.bias is not None and self.bias_shared else None
        y = F.conv2d(self.windowed(x), self.column, bias if across.idle else None, (self.phases.step, 1))
        if not across.idle:
            y = F.conv2d(y, self.row, bias, (1, across.down), 0, (1, across.dilation), count)
        if not self.resample.static:
            return self.finished(y.transpose(1, 2).flatten(1, 2), x)
        # The last operator writes whole rows in the shape of the output. A Reshape behind it would be a copy.
        y = y.reshape(-1, self.resample.groups, count * y.shape[2], y.shape[3])
        return y.index_select(2, self.order)
