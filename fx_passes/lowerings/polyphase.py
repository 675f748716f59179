"""T neighbouring outputs along the width become T channels of one dense convolution.

Before:  conv(x (N, C, H, W), expand(kernel), groups=C)
After:   conv(x (N * C, 1, H, W), weight (T, 1, kh, window), stride (sh, T * sw)), then channels last

A dense convolution from 1 to T channels is what runtimes are fastest at, and its output with the channels
last is the width in order. Sharing makes it possible: with one kernel, channels are batch items.
(``phases.py``)
"""

from __future__ import annotations

from torch import Tensor

from fx_passes.polyphase_conv import PolyphaseConv, polyphase_refusal
from fx_passes.records import Proposal
from fx_passes.resample import Resample


def propose(resample: Resample, kernel: Tensor) -> list[Proposal] | str:
    """8, 16 or 32 phases."""
    if resample.up > 1:
        return "it is transposed"
    if refusal := polyphase_refusal(resample):
        return refusal
    return [Proposal("polyphase", (("phases", n),), "finite") for n in (8, 16, 32)]


class Module(PolyphaseConv):
    """``phases`` outputs at a time."""
