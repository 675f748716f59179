"""Groups of several channels -> batch items of one dense convolution.

Before:  conv(x (N, G * columns, H, W), groups=G)      after:  conv(x (N * G, columns, H, W)), dense

Runtimes are slow at groups of several channels and fast at dense convolutions. Both compute the same, because
every group has the same kernel. The runtime decides the order of the sums.
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
    """Each group an item of the batch."""
    if resample.rows == resample.columns == 1:
        return refuse("one-channel", "a group has one channel, and so no dense convolution")
    if refusal := grouped_refusal(resample):
        return refusal
    exactness: Exactness = "finite" if resample.block_diagonal else "reordered"
    return [Proposal("fold_channels", (), exactness)]


def work(site: Sizes, params: parts.Params, block: int) -> Work:
    """What onnxruntime does for it; args as in ``costs/shared_parts.py``."""
    return parts.regrouped(site, site.planes, 1, block) + parts.bias(site)


class Module(GroupedConv):
    """(N * groups, columns, H, W), dense."""

    def groups(self) -> int:
        return 1
