"""Several outputs of one channel, each a column times a row: each row in phases, then its columns.

Before:  conv(x (N, C, H, W), expand(kernel (R, 1, kh, kw)), groups=C), each of the R a column times a row
After:   for each different row: y = conv(x (N * C, 1, H, W), weight (T, 1, 1, window), stride (1, T * sw))
         for each column with this row: conv(y, expand(column), groups=T), then channels last
         all outputs side by side

Gradients are such, and a step of a wavelet transform: low and high pass along the width, and both again along
the height. (``resample/phases.py``, ``kernels/factor.py``)
"""

from __future__ import annotations

from collections import Counter

import torch
import torch.nn.functional as F
from torch import Tensor

from fx_passes.costs import shared_parts as parts
from fx_passes.costs.operator_times import Work, depthwise, moved, one_to_many
from fx_passes.costs.site_sizes import Sizes
from fx_passes.lowerings.forms.bank_lines import lines_of, lines_refusal
from fx_passes.lowerings.forms.planar import Planar
from fx_passes.lowerings.forms.refusals import bank_refusal
from fx_passes.lowerings.forms.windows import phase_windows, single_windows
from fx_passes.records import Proposal, Refusal
from fx_passes.resample.axes import Resample
from fx_passes.resample.phases import phase_weight, phases_of


def propose(resample: Resample, kernel: Tensor) -> list[Proposal] | Refusal:
    """8 or 16 phases."""
    if refusal := bank_refusal(resample):
        return refusal
    lines = lines_of(kernel) if resample.dim == 2 else None
    if lines is None or min(kernel.shape[2:]) == 1:
        return lines_refusal(kernel)
    ways = [(("phases", phases), ("rows", len(lines))) for phases in (8, 16)]
    return [Proposal("separable_bank", way, "finite") for way in ways]


def work(site: Sizes, params: parts.Params, block: int) -> Work:
    """What onnxruntime does for it; args as in ``costs/shared_parts.py``."""
    count, across = params["phases"], parts.phases(site.width, params["phases"])
    blocks, height = parts.blocks(site, count), parts.window_height(site)
    down = site.height.taps, 1
    work: Work = Counter()
    for _ in range(params["rows"]):
        work += one_to_many(site.planes, (1, count), (height, blocks), (1, across.window), block)
    for _ in range(site.rows):
        work += depthwise(site.planes, count, (site.outputs[0], blocks), down, block)
    side_by_side = moved(site.written, "interleave")
    return parts.window(site, across) + work + side_by_side + parts.tail(site, count)


class Module(Planar):
    """``phases`` outputs at a time, of ``rows`` different rows."""

    finishes = True

    def __init__(
        self, resample: Resample, kernel: Tensor, bias: Tensor | None, *, phases: int, rows: int
    ) -> None:
        height, width = resample.height_width()
        across = phases_of(width, phases)
        assert across is not None  # as nothing is stuffed in between
        self.across = across
        self.windows = single_windows(height), phase_windows(across)
        super().__init__(resample, kernel, bias, phases=phases, rows=rows)

    def prepare(self, kernel: Tensor) -> None:
        lines = lines_of(self.unscaled)
        assert lines is not None  # or it would not be proposed
        self.outputs = [line.outputs for line in lines]
        for number, line in enumerate(lines):
            row = phase_weight(line.row * self.resample.scale, self.across, 0)  # (T, window)
            self.keep(f"row_{number}", row[:, None, None].to(self.dtype).contiguous())
            self.keep(f"columns_{number}", line.columns[:, None, None, :, None].to(self.dtype).contiguous())

    def compute(self, x: Tensor) -> Tensor:
        read, count = self.windowed(x), self.across.count
        step, dilation = (self.height.down, 1), (self.height.dilation, 1)
        shared = self.bias if self.bias_shared else None
        planes: dict[int, Tensor] = {}
        for number, outputs in enumerate(self.outputs):
            y = F.conv2d(read, self.get_buffer(f"row_{number}"), None, (1, self.across.step))
            for output, column in zip(outputs, self.get_buffer(f"columns_{number}"), strict=True):
                bias = None if shared is None else shared[output].expand(count)
                z = F.conv2d(y, column.expand(count, -1, -1, -1), bias, step, 0, dilation, count)
                planes[output] = z.permute(0, 2, 3, 1).flatten(2, 3)
        ordered = [planes[output] for output in sorted(planes)]
        return self.finished(torch.stack(ordered, 1).flatten(0, 1), x)
