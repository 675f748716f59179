"""A dense convolution with a block-diagonal weight -> the grouped convolution that it stands for.

Before:  conv(x, block_diagonal(kernel), groups=1)      after:  conv(x, expand(kernel), groups)

The products with the zeros outside the blocks are left out. So an Inf or NaN no longer reaches the other
channels; for finite inputs the outputs agree. (diffusers' ``KDownsample2D`` and ``KUpsample2D`` are written
like this.)
"""

from __future__ import annotations

from torch import Tensor

from fx_passes.costs import shared_parts as parts
from fx_passes.costs.operator_times import Work, takes_blocks
from fx_passes.costs.site_sizes import Sizes
from fx_passes.lowerings.forms.grouped_conv import GroupedConv
from fx_passes.lowerings.forms.refusals import grouped_refusal, refuse
from fx_passes.records import Proposal, Refusal
from fx_passes.resample.axes import Resample

# Where sizes are known, it begins and ends with a convolution of the channels of the site: a neighbour that
# keeps its channels in blocks can go on keeping them.
KEEPS_BLOCKS = True


def propose(resample: Resample, kernel: Tensor) -> list[Proposal] | Refusal:
    """The grouped form of a block-diagonal convolution."""
    if not resample.block_diagonal:
        return refuse("not-block-diagonal", "the convolution is not block-diagonal")
    return grouped_refusal(resample) or [Proposal("grouped", (), "finite")]


def work(site: Sizes, params: parts.Params, block: int) -> Work:
    """What onnxruntime does for it; args as in ``costs/shared_parts.py``."""
    return parts.regrouped(site, site.items, site.groups, block, takes_blocks(site, block)) + parts.bias(site)


class Module(GroupedConv):
    """(N, groups * columns, H, W), one group for each block."""
