"""Groups of several channels -> batch items of one dense convolution.

Before:  conv(x (N, G * columns, H, W), groups=G)      after:  conv(x (N * G, columns, H, W)), dense

Runtimes are slow at groups of several channels and fast at dense convolutions; that every group has the same
kernel is what makes them the same. The order of the sums is up to the runtime.
"""

from __future__ import annotations

from torch import Tensor

from fx_passes.grouped_conv import GroupedConv, grouped_refusal
from fx_passes.records import Exactness, Proposal
from fx_passes.resample import Resample


def propose(resample: Resample, kernel: Tensor) -> list[Proposal] | str:
    """Each group an item of the batch."""
    if resample.rows == resample.columns == 1:
        return "a group has one channel, and so no dense convolution"
    if refusal := grouped_refusal(resample):
        return refusal
    exactness: Exactness = "finite" if resample.block_diagonal else "reordered"
    return [Proposal("fold_channels", (), exactness)]


class Module(GroupedConv):
    """(N * groups, columns, H, W), dense."""

    def groups(self) -> int:
        return 1
