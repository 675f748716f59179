"""A transposed convolution, or a filter on a zero-stuffed input -> ordinary convolutions, one for each phase.

Before:  conv_transpose(x, expand(kernel), stride=s, groups=C), Slice; or zeros stuffed in, Pad, conv
After:   conv(x (N * C, 1, H, W), weight (s * T, 1, windows)), and the phases interleaved

Output phase r of stride s uses only the taps r, r + s, ... So nothing is multiplied with the zeros that the
stride puts in. Along the width, T outputs become channels as in ``polyphase``. What a Slice removes is not
computed. ``interleave`` says how the s phases of the height are put together. ``"split"``: one convolution,
whose channels are cut apart. ``"stack"``: one convolution for each phase. (``resample/phases.py``)
"""

from __future__ import annotations

from collections import Counter

from torch import Tensor

from fx_passes.costs import shared_parts as parts
from fx_passes.costs.operator_times import Work, moved, nodes, one_to_many
from fx_passes.costs.site_sizes import Sizes
from fx_passes.lowerings import polyphase
from fx_passes.lowerings.forms.polyphase_conv import PolyphaseConv
from fx_passes.lowerings.forms.refusals import phases_refusal, polyphase_refusal, refuse
from fx_passes.records import Proposal, Refusal
from fx_passes.resample.axes import Resample


def propose(resample: Resample, kernel: Tensor) -> list[Proposal] | Refusal:
    """8, 16 or 32 outputs along the width at a time."""
    if resample.up == 1:
        return refuse("not-transposed", "it is not transposed")
    if refusal := polyphase_refusal(resample):
        return refusal
    width, height = resample.axes[-1], resample.height_width()[0]
    ways = ("split", "stack") if height.up > 1 else ("split",)
    proposals = []
    for phases in (8, 16, 32):
        if phases * width.down % width.up == 0:
            for way in ways:
                params = (("interleave", way), ("phases", phases))
                proposals.append(Proposal("transposed_polyphase", params, "finite"))
    return proposals or phases_refusal("8, 16 or 32", width.up)


def work(site: Sizes, params: parts.Params, block: int) -> Work:
    """What onnxruntime does for it; args as in ``costs/shared_parts.py``."""
    count, across = params["phases"], parts.phases(site.width, params["phases"])
    if site.height.up == 1:
        return polyphase.work(site, params, block)
    down = parts.phases(site.height, site.height.up)
    out, taps = (-(-site.outputs[0] // down.count), parts.blocks(site, count)), (down.window, across.window)
    stacked = params["interleave"] == "stack"
    calls, many = (down.count, count) if stacked else (1, count * down.count)
    work: Work = Counter()
    for _ in range(calls):
        work += one_to_many(site.planes, (1, many), out, taps, block) + nodes(2)
    split = Counter() if stacked else moved(site.written, "interleave")
    return (
        parts.window(site, across)
        + work
        + split
        + moved(site.written, "interleave")
        + parts.tail(site, count)
    )


class Module(PolyphaseConv):
    """``phases`` outputs of the width at a time, ``interleave`` for those of the height."""
