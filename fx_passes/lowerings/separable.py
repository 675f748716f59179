"""A kernel of rank 1 -> two convolutions of one dimension each.

Before:  conv(x, expand(column * row))      after:  conv(conv(x, expand(row)), expand(column))

An output takes taps + taps products instead of taps * taps. The intermediate result is rounded. If column and
row are exact (``kernels/factor.py`` tries that first), nothing else changes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from fx_passes.costs import shared_parts as parts
from fx_passes.costs.operator_times import Work, takes_blocks
from fx_passes.costs.site_sizes import Sizes
from fx_passes.kernels.factor import factorise, zeros_agree
from fx_passes.lowerings.forms.grouped_conv import padded
from fx_passes.lowerings.forms.planar import Planar
from fx_passes.lowerings.forms.refusals import grouped_refusal, separable_refusal, transposed_refusal
from fx_passes.records import Exactness, Proposal, Refusal
from fx_passes.resample.axes import Resample

# Where sizes are known, it begins and ends with a convolution of the channels of the site: a neighbour that
# keeps its channels in blocks can go on keeping them.
KEEPS_BLOCKS = True


def propose(resample: Resample, kernel: Tensor) -> list[Proposal] | Refusal:
    """Row, then column, as grouped convolutions."""
    if resample.up > 1:
        return transposed_refusal()
    if refusal := grouped_refusal(resample) or separable_refusal(resample, kernel):
        return refusal
    column, row = factorise(kernel[0, 0], 1)[0]  # type: ignore[index]
    same_zeros = zeros_agree(column, row, kernel[0, 0])
    exactness: Exactness = "reordered" if same_zeros and not resample.block_diagonal else "finite"
    return [Proposal("separable", (), exactness)]


def work(site: Sizes, params: parts.Params, block: int) -> Work:
    """Row, then column. A tensor that is in blocks of channels stays so in between. Args as in
    ``costs/shared_parts.py``."""
    height, width = site.height, site.width
    chain = takes_blocks(site, block)
    across = replace(site, outputs=(site.inputs[0], site.outputs[1]), height=replace(height, taps=1, down=1))
    down = replace(site, inputs=across.outputs, width=replace(width, taps=1, down=1), padded=False)
    row = parts.regrouped(across, site.items, site.groups, block, chain)
    return (
        row
        + parts.regrouped(down, site.items, site.groups, block, chain or site.groups % 4 == 0)
        + parts.bias(site)
    )


class Module(Planar):
    """Two grouped convolutions on (N, groups, H, W)."""

    row: Tensor
    column: Tensor

    def prepare(self, kernel: Tensor) -> None:
        column, row = self.factors(1)[0]
        self.register_buffer("row", row.to(self.dtype).reshape(1, 1, 1, -1), persistent=False)
        self.register_buffer("column", column.to(self.dtype).reshape(1, 1, -1, 1), persistent=False)

    def compute(self, x: Tensor) -> Tensor:
        groups = self.resample.groups
        height, width = self.height, self.width
        x = self.channels(x)
        row, column = (weight.expand(groups, 1, -1, -1) for weight in (self.row, self.column))
        bias = self.bias.expand(groups) if self.bias is not None and self.bias_shared else None
        x, padding = padded(self, x)
        if self.lengths[0] is None and height.size(0) > 0:  # onnxruntime computes no row of an empty image
            x, padding = F.pad(x, (0, 0, padding[0], padding[0])), (0, padding[1])
        x = F.conv2d(x, row, None, (1, width.down), (0, padding[1]), (1, width.dilation), groups)
        down: Any = (height.down, 1)
        return F.conv2d(x, column, bias, down, (padding[0], 0), (height.dilation, 1), groups)
