"""T neighbouring outputs along the width become T channels of one dense convolution.

Before:  conv(x (N, C, H, W), expand(kernel), groups=C)
After:   conv(x (N * C, 1, H, W), weight (T, 1, kh, window), stride (sh, T * sw)), then channels last

Runtimes are fastest at a dense convolution from 1 channel to T. With its channels last, the output has the
width in order. Sharing makes this possible: with one kernel, channels can be batch items.
(``resample/phases.py``)
"""

from __future__ import annotations

from torch import Tensor

from fx_passes.costs import shared_parts as parts
from fx_passes.costs.operator_times import Work, one_to_many
from fx_passes.costs.site_sizes import Sizes
from fx_passes.lowerings.forms.polyphase_conv import PolyphaseConv
from fx_passes.lowerings.forms.refusals import polyphase_refusal, transposed_refusal
from fx_passes.records import Proposal, Refusal
from fx_passes.resample.axes import Resample


def propose(resample: Resample, kernel: Tensor) -> list[Proposal] | Refusal:
    """8, 16 or 32 phases."""
    if resample.up > 1:
        return transposed_refusal()
    if refusal := polyphase_refusal(resample):
        return refusal
    return [Proposal("polyphase", (("phases", n),), "finite") for n in (8, 16, 32)]


def work(site: Sizes, params: parts.Params, block: int) -> Work:
    """What onnxruntime does for it; args as in ``costs/shared_parts.py``."""
    count, across = params["phases"], parts.phases(site.width, params["phases"])
    out, taps = (site.outputs[0], parts.blocks(site, count)), (site.height.taps, across.window)
    return (
        parts.window(site, across)
        + one_to_many(site.planes, (1, count), out, taps, block)
        + parts.tail(site, count)
    )


class Module(PolyphaseConv):
    """``phases`` outputs at a time."""
