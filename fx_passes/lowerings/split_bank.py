"""Several outputs of one channel: each output of all channels by a depthwise convolution of its own.

Before:  conv(x (N, C, H, W), expand(kernel (R, 1, kh, kw)), groups=C)
After:   R times: conv(x, expand(kernel[r]), groups=C)
         or for each different row: y = conv(x, expand(row), groups=C), and for each of its columns
         conv(y, expand(column), groups=C)
         then all outputs of a channel side by side

Runtimes have a fast depthwise convolution for one output of each channel. Several outputs take the slow path
for groups, one product of matrices for each channel.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from fx_passes.costs import shared_parts as parts
from fx_passes.costs.operator_times import Work, moved, times
from fx_passes.costs.site_sizes import Sizes
from fx_passes.kernels.factor import zeros_agree
from fx_passes.lowerings.forms.bank_lines import lines_of
from fx_passes.lowerings.forms.grouped_conv import padded
from fx_passes.lowerings.forms.planar import Planar
from fx_passes.lowerings.forms.refusals import bank_refusal, refuse
from fx_passes.records import Exactness, Proposal, Refusal
from fx_passes.resample.axes import Resample


def propose(resample: Resample, kernel: Tensor) -> list[Proposal] | Refusal:
    """Each output by itself; and by rows and columns, if there are as many different rows as ``rows``."""
    if refusal := bank_refusal(resample):
        return refusal
    if resample.groups == 1:
        return refuse("one-group", "it has one group, so that its convolution is dense")
    least: Exactness = "finite" if resample.block_diagonal else "reordered"
    found = [Proposal("split_bank", (), least)]
    lines = lines_of(kernel) if resample.dim == 2 and min(kernel.shape[2:]) > 1 else None
    if lines is not None:
        agree = all(
            zeros_agree(column, line.row, kernel[output, 0])
            for line in lines
            for output, column in zip(line.outputs, line.columns, strict=True)
        )
        found.append(Proposal("split_bank", (("rows", len(lines)),), least if agree else "finite"))
    return found


def work(site: Sizes, params: parts.Params, block: int) -> Work:
    """What onnxruntime does for it; args as in ``costs/shared_parts.py``."""
    alone, groups, chain = replace(site, rows=1), site.groups, site.groups % 4 == 0
    side_by_side = moved(site.written) + parts.bias(site)
    if "rows" not in params:
        return times(parts.regrouped(alone, site.items, groups, block), site.rows) + side_by_side
    height, width = site.height, site.width
    across = replace(alone, outputs=(site.inputs[0], site.outputs[1]), height=replace(height, taps=1, down=1))
    down = replace(alone, inputs=across.outputs, width=replace(width, taps=1, down=1), padded=False)
    row = parts.regrouped(across, site.items, groups, block, chain)
    column = parts.regrouped(down, site.items, groups, block, chain)
    reordered = moved(site.read) + moved(site.written) if chain else Counter()
    return times(row, params["rows"]) + times(column, site.rows) + reordered + side_by_side


class Module(Planar):
    """A grouped convolution on (N, groups, H, W) for each output, or for each row and each column."""

    weight: Tensor

    def __init__(self, resample: Resample, kernel: Tensor, bias: Tensor | None, *, rows: int = 0) -> None:
        self.rows = rows
        super().__init__(resample, kernel, bias, **({"rows": rows} if rows else {}))

    def prepare(self, kernel: Tensor) -> None:
        if not self.rows:
            self.keep("weight", kernel.to(self.dtype).contiguous())
            return
        lines = lines_of(self.unscaled)
        assert lines is not None  # or it would not be proposed
        self.outputs = [line.outputs for line in lines]
        for number, line in enumerate(lines):
            row, columns = line.row * self.resample.scale, line.columns
            self.keep(f"row_{number}", row.to(self.dtype).reshape(1, 1, 1, -1))
            self.keep(f"columns_{number}", columns.to(self.dtype)[:, None, :, None].contiguous())

    def compute(self, x: Tensor) -> Tensor:
        x, padding = padded(self, self.channels(x))
        planes = self.by_lines(x, padding) if self.rows else self.by_planes(x, padding)
        return torch.stack([planes[output] for output in sorted(planes)], 2).flatten(1, 2)

    def by_planes(self, x: Tensor, padding: tuple[int, int]) -> dict[int, Tensor]:
        """Each output of the groups, by its number."""
        step = self.height.down, self.width.down
        dilation = self.height.dilation, self.width.dilation
        kernels = enumerate(self.weight.split(1))
        return {output: self.one(x, kernel, output, step, padding, dilation) for output, kernel in kernels}

    def by_lines(self, x: Tensor, padding: tuple[int, int]) -> dict[int, Tensor]:
        """The same, from rows and columns."""
        height, width = self.height, self.width
        if self.lengths[0] is None and height.size(0) > 0:  # onnxruntime computes no row of an empty image
            x, padding = F.pad(x, (0, 0, padding[0], padding[0])), (0, padding[1])
        planes = {}
        for number, outputs in enumerate(self.outputs):
            row, columns = self.get_buffer(f"row_{number}"), self.get_buffer(f"columns_{number}")
            y = self.one(x, row, None, (1, width.down), (0, padding[1]), (1, width.dilation))
            step, dilation = (height.down, 1), (height.dilation, 1)
            for output, column in zip(outputs, columns.split(1), strict=True):
                planes[output] = self.one(y, column, output, step, (padding[0], 0), dilation)
        return planes

    def one(
        self,
        x: Tensor,
        kernel: Tensor,
        output: int | None,
        step: tuple[int, int],
        padding: tuple[int, int],
        dilation: tuple[int, int],
    ) -> Tensor:
        """All channels by one kernel (1, 1, kh, kw), with the bias of ``output``."""
        groups, bias = self.resample.groups, None
        if output is not None and self.bias is not None and self.bias_shared:
            bias = self.bias[output].expand(groups)
        return F.conv2d(x, kernel.expand(groups, -1, -1, -1), bias, step, padding, dilation, groups)
