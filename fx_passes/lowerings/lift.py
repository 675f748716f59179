"""A 1-D convolution -> the same in two dimensions, of height 1.

Before:  conv1d(x (N, C, L))      after:  conv2d(x (N, C, 1, L)), the sums are the same

onnxruntime has a fast path (blocks of channels) for 4-D convolutions only. The runtime may add in another
order on it, so that the result is the same up to rounding.
"""

from __future__ import annotations

from torch import Tensor

from fx_passes.grouped_conv import GroupedConv, grouped_refusal
from fx_passes.records import Proposal
from fx_passes.resample import Resample

# Outputs.
_SMALL = 1 << 16


def propose(resample: Resample, kernel: Tensor) -> list[Proposal] | str:
    """The 2-D form of a 1-D convolution."""
    if resample.dim != 1:
        return "the convolution has more than one dimension"
    if resample.block_diagonal:
        return "the convolution is dense; `grouped` lifts it as well"
    if refusal := grouped_refusal(resample):
        return refusal
    blocked = resample.up == 1 and resample.groups % 16 == 0 and resample.rows == 1
    # Above what `polyphase` is worth where a site is so small that what surrounds the sums counts.
    small = resample.outputs is not None and resample.outputs <= _SMALL
    static = (4.5 if small else 2.0) if blocked else 0.0
    return [Proposal("lift", (), "reordered", static)]


class Module(GroupedConv):
    """(N, groups * columns, 1, L)."""
