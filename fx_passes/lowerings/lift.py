"""A convolution of one or three dimensions -> a convolution of two.

Before:  conv1d(x (N, C, L))                after:  conv2d(x (N, C, 1, L)), the sums are the same
         conv3d(x, kernel (1, kh, kw))              conv2d(x (N, C * D, H, W)), and see ``forms/volume.py``

onnxruntime has its fast path (blocks of channels) only for 4-D tensors. There it may add in another order, so
the result agrees up to rounding.
"""

from __future__ import annotations

from torch import Tensor

from fx_passes.costs import shared_parts as parts
from fx_passes.costs.operator_times import Work
from fx_passes.costs.site_sizes import Sizes
from fx_passes.lowerings.forms.grouped_conv import GroupedConv
from fx_passes.lowerings.forms.refusals import grouped_refusal, refuse
from fx_passes.records import Proposal, Refusal
from fx_passes.resample.axes import Resample


def propose(resample: Resample, kernel: Tensor) -> list[Proposal] | Refusal:
    """The 2-D form of a 1-D convolution."""
    if resample.dim != 1 and not resample.of_volume:
        return refuse("dimensions", "the convolution has two dimensions")
    if resample.block_diagonal:
        return refuse("block-diagonal", "the convolution is dense; `grouped` lifts it as well")
    if refusal := grouped_refusal(resample):
        return refusal
    return [Proposal("lift", (), "reordered")]


def work(site: Sizes, params: parts.Params, block: int) -> Work:
    """What onnxruntime does for it; args as in ``costs/shared_parts.py``."""
    return parts.regrouped(site, site.items, site.groups, block) + parts.bias(site)


class Module(GroupedConv):
    """(N, groups * columns, 1, L)."""
