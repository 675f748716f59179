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
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fx_passes.costs import shared_parts as parts
from fx_passes.costs.operator_times import Work, depthwise, moved, one_to_many
from fx_passes.costs.site_sizes import Sizes
from fx_passes.kernels.factor import factorise
from fx_passes.lowerings.forms.planar import Planar
from fx_passes.lowerings.forms.refusals import bank_refusal, refuse
from fx_passes.lowerings.forms.windows import phase_windows, single_windows
from fx_passes.records import Proposal, Refusal
from fx_passes.resample.axes import Resample
from fx_passes.resample.phases import phase_weight, phases_of


def propose(resample: Resample, kernel: Tensor) -> list[Proposal] | Refusal:
    """8 or 16 phases."""
    if refusal := bank_refusal(resample):
        return refusal
    if resample.dim != 2:
        return refuse("dimensions", f"a {resample.dim}-D kernel is not separated")
    if min(kernel.shape[2:]) == 1:
        return refuse("line", "the kernel is a row or a column already")
    if (lines := _lines(kernel)) is None:
        return refuse("rank", "one of its kernels is no product of a column and a row")
    ways = [(("phases", phases), ("rows", len(lines))) for phases in (8, 16)]
    return [Proposal("separable_bank", way, "finite") for way in ways]


@dataclass(frozen=True)
class _Line:
    """A row, and the columns that are multiplied with it, float64.

    Args:
        outputs: for each column, which output of the group the product is.
    """

    row: Tensor
    columns: Tensor
    outputs: tuple[int, ...]


def _lines(kernel: Tensor) -> list[_Line] | None:
    """The factors of the kernels, by their rows. None if a kernel is no product."""
    found: list[_Line] = []
    for output in range(len(kernel)):
        for place, line in enumerate(found):
            if one := _line(kernel, (*line.outputs, output)):
                found[place] = one
                break
        else:
            if (one := _line(kernel, (output,))) is None:
                return None
            found.append(one)
    return found


def _line(kernel: Tensor, outputs: tuple[int, ...]) -> _Line | None:
    """The row of these outputs with their columns: one above the other, their kernels have rank 1."""
    pairs = factorise(kernel[list(outputs), 0].flatten(0, 1), 1)
    return (
        None if pairs is None else _Line(pairs[0][1], pairs[0][0].unflatten(0, (len(outputs), -1)), outputs)
    )


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
        lines = _lines(self.unscaled)
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
