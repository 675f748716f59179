"""A kernel of rank 1: T neighbouring outputs along the width as channels, then the column on each channel.

Before:  conv(x (N, C, H, W), expand(column * row), groups=C)
After:   conv(x (N * C, 1, H, W), weight (T, 1, 1, window), stride (1, T * sw)), conv(..., column, groups=T),
         then channels last

Row and column together take window + taps products for each output. Between them, the T channels stay as they
are. (``resample/phases.py``, ``kernels/factor.py``)
"""

from __future__ import annotations

from collections import Counter

from torch import Tensor

from fx_passes.costs import shared_parts as parts
from fx_passes.costs.operator_times import Work, depthwise, moved, one_to_many
from fx_passes.costs.site_sizes import Sizes
from fx_passes.lowerings.forms.polyphase_conv import SeparablePolyphaseConv
from fx_passes.lowerings.forms.refusals import phases_refusal, polyphase_refusal, refuse, separable_refusal
from fx_passes.records import Proposal, Refusal
from fx_passes.resample.axes import Resample


def propose(resample: Resample, kernel: Tensor) -> list[Proposal] | Refusal:
    """8, 16 or 32 phases."""
    if refusal := polyphase_refusal(resample) or separable_refusal(resample, kernel):
        return refusal
    if resample.height_width()[0].up > 1:
        return refuse(
            "transposed", "it is transposed along the height, where `transposed_polyphase` has few taps left"
        )
    width = resample.axes[-1]
    proposals = [
        Proposal("separable_polyphase", (("phases", n),), "finite")
        for n in (8, 16, 32)
        if n * width.down % width.up == 0
    ]
    return proposals or phases_refusal("8, 16 or 32", width.up)


def work(site: Sizes, params: parts.Params, block: int, rank: int = 1) -> Work:
    """What onnxruntime does for it; args as in ``costs/shared_parts.py``."""
    count, across = params["phases"], parts.phases(site.width, params["phases"])
    blocks, height = parts.blocks(site, count), parts.window_height(site)
    rows = one_to_many(site.planes, (1, count * rank), (height, blocks), (1, across.window), block)
    columns = depthwise(site.planes, count * rank, (site.outputs[0], blocks), (site.height.taps, 1), block)
    sums = moved(2 * rank * site.written) if rank > 1 else Counter()
    return parts.window(site, across) + rows + columns + sums + parts.tail(site, count)


class Module(SeparablePolyphaseConv):
    """Rank 1."""

    rank = 1
