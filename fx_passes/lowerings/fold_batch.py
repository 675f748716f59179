"""Batch items -> more groups of one convolution. Every group has the same kernel, whichever item it belongs
to.

Before:  conv(x (N, C, H, W), groups=C)      after:  conv(x (1, N * C, H, W), groups=N * C)

A runtime that computes channels in blocks can then fill its blocks, even if C is small. The runtime decides
the order of the sums. With a batch of 1 there is nothing to fold.
"""

from __future__ import annotations

from torch import Tensor

from fx_passes.costs import shared_parts as parts
from fx_passes.costs.operator_times import Work
from fx_passes.costs.site_sizes import Sizes
from fx_passes.lowerings.forms.grouped_conv import GroupedConv
from fx_passes.lowerings.forms.refusals import grouped_refusal, refuse
from fx_passes.records import Exactness, Proposal, Refusal
from fx_passes.resample.axes import Resample


def propose(resample: Resample, kernel: Tensor) -> list[Proposal] | Refusal:
    """All planes as groups of one item."""
    planes = resample.planes
    if planes is None:
        return refuse("open-size", "the batch size is open, and the number of groups may not be")
    if planes == 0:
        return refuse("empty", "the batch is empty")
    if planes == resample.groups:
        return refuse("batch", "the batch has one item")
    if refusal := grouped_refusal(resample):
        return refusal
    exactness: Exactness = "finite" if resample.block_diagonal else "reordered"
    return [Proposal("fold_batch", (), exactness)]


def work(site: Sizes, params: parts.Params, block: int) -> Work:
    """What onnxruntime does for it; args as in ``costs/shared_parts.py``."""
    return parts.regrouped(site, 1, site.planes, block) + parts.bias(site)


class Module(GroupedConv):
    """(1, N * groups * columns, H, W)."""

    def groups(self) -> int:
        planes = self.resample.planes
        assert planes is not None
        return planes
