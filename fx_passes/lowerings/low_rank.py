"""A kernel of rank 2 or 3: a sum of rank-1 kernels, each computed as in ``separable_polyphase``.

Before:  conv(x, expand(kernel))      after:  sum over r of conv(conv(x, row r), column r), channels last

It pays if rank * (window + taps) is well below taps * taps, and is proposed only then.
"""

from __future__ import annotations

from torch import Tensor

from fx_passes.costs import shared_parts as parts
from fx_passes.costs.operator_times import Work
from fx_passes.costs.site_sizes import Sizes
from fx_passes.kernels.factor import factorise
from fx_passes.lowerings import separable_polyphase
from fx_passes.lowerings.forms.polyphase_conv import SeparablePolyphaseConv
from fx_passes.lowerings.forms.refusals import (
    polyphase_refusal,
    refuse,
    separable_refusal,
    transposed_refusal,
)
from fx_passes.records import Proposal, Refusal
from fx_passes.resample.axes import Resample

MOST = 3


def propose(resample: Resample, kernel: Tensor) -> list[Proposal] | Refusal:
    """16 phases of each of at most three products."""
    if refusal := polyphase_refusal(resample) or separable_refusal(resample, kernel, MOST):
        return refusal
    if resample.up > 1:
        return transposed_refusal()
    pairs = factorise(kernel[0, 0], MOST)
    assert pairs is not None
    rank, (kh, kw) = len(pairs), kernel.shape[2:]
    if rank == 1:
        return refuse("rank", "the kernel has rank 1")
    if rank * (kw + 15 + kh) > kh * kw:
        return refuse(
            "rank", f"a sum of {rank} products takes no fewer multiplications than {kh} x {kw} taps"
        )
    return [Proposal("low_rank", (("phases", 16),), "finite")]


def work(site: Sizes, params: parts.Params, block: int) -> Work:
    """What onnxruntime does for it; args as in ``costs/shared_parts.py``."""
    return separable_polyphase.work(site, params, block, MOST)


class Module(SeparablePolyphaseConv):
    """Rank 2 or 3."""

    rank = MOST
