"""Several outputs of one channel: T neighbouring outputs along the width, of each of R, as R * T channels.

Before:  conv(x (N, C, H, W), expand(kernel (R, 1, kh, kw)), groups=C)
After:   conv(x (N * C, 1, H, W), weight (R * T, 1, kh, window), stride (sh, T * sw)), then the width in order

Wavelets, gradients and filter banks are such. A dense convolution of R outputs leaves most of a vector
register empty; with T neighbours of each it is full. The blocks of T are moved to their places at the end.
(``resample/phases.py``)
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from fx_passes.costs import shared_parts as parts
from fx_passes.costs.operator_times import Work, moved, one_to_many
from fx_passes.costs.site_sizes import Sizes
from fx_passes.lowerings.forms.planar import Planar
from fx_passes.lowerings.forms.refusals import bank_refusal
from fx_passes.lowerings.forms.windows import phase_windows, single_windows
from fx_passes.records import Proposal, Refusal
from fx_passes.resample.axes import Resample
from fx_passes.resample.phases import phase_weight, phases_of


def propose(resample: Resample, kernel: Tensor) -> list[Proposal] | Refusal:
    """4, 8 or 16 phases."""
    if refusal := bank_refusal(resample):
        return refusal
    return [Proposal("bank_polyphase", (("phases", n),), "finite") for n in (4, 8, 16)]


def work(site: Sizes, params: parts.Params, block: int) -> Work:
    """What onnxruntime does for it; args as in ``costs/shared_parts.py``."""
    count, across = params["phases"], parts.phases(site.width, params["phases"])
    out, taps = (site.outputs[0], parts.blocks(site, count)), (site.height.taps, across.window)
    return (
        parts.window(site, across)
        + one_to_many(site.planes, (1, count * site.rows), out, taps, block)
        + moved(site.written, "interleave")
        + moved(site.written, "interleave")
        + parts.tail(site, count)
    )


class Module(Planar):
    """``phases`` outputs at a time of each of the outputs of a channel."""

    weight: Tensor
    finishes = True

    def __init__(self, resample: Resample, kernel: Tensor, bias: Tensor | None, *, phases: int) -> None:
        height, width = resample.height_width()
        across = phases_of(width, phases)
        assert across is not None  # as nothing is stuffed in between
        self.across = across
        self.windows = single_windows(height), phase_windows(across)
        super().__init__(resample, kernel, bias, phases=phases)

    def prepare(self, kernel: Tensor) -> None:
        weight = phase_weight(kernel[:, 0], self.across, 2).transpose(1, 2)  # (R, T, kh, window)
        self.keep("weight", weight.flatten(0, 1).unsqueeze(1).to(self.dtype).contiguous())

    def compute(self, x: Tensor) -> Tensor:
        bias = None
        if self.bias is not None and self.bias_shared:
            bias = self.bias.repeat_interleave(self.across.count)
        stride = self.height.down, self.across.step
        y = F.conv2d(self.windowed(x), self.weight, bias, stride, 0, (self.height.dilation, 1))
        y = y.permute(0, 2, 3, 1).unflatten(3, (-1, self.across.count)).permute(0, 3, 1, 2, 4)
        return self.finished(y.flatten(3, 4).flatten(0, 1), x)
