"""Judges a weight by its numbers: does it repeat one kernel, or one up to a factor for each group?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor

from fx_passes.find.calls.call import ConvCall
from fx_passes.find.verdict import Action, KeepScaled, Verdict
from fx_passes.kernels.block_diagonal import diagonal_blocks, find_diagonal_blocks
from fx_passes.kernels.repeats import Allowed, Mismatch, find_repeats, find_scaled_repeats, output_change
from fx_passes.records import ConvSite, Finding, Refusal, SharedKernel

SCALED = "one kernel, up to a factor for each group"


def judge_values(
    call: ConvCall,
    site: ConvSite,
    weight: Tensor,
    allowed: Allowed,
    frozen: bool,
    action_of: Callable[[Tensor], Action],
) -> Verdict:
    """The verdict by the numbers of ``weight``. ``action_of`` gives the action for the kernel that they
    repeat. Factors of the groups can be computed behind the convolution if the weight is frozen."""
    groups, found = site.geometry.groups, None
    block_diagonal = groups == 1
    if not block_diagonal:
        found = find_repeats(weight, groups, allowed)
    elif (diagonal := find_diagonal_blocks(weight, allowed)) is not None:
        groups, found = diagonal
    if found is None:
        return refused(call, site, "dense", "the weight is dense")
    if isinstance(found, Mismatch):
        if frozen and not block_diagonal and (scaled := find_scaled_repeats(weight, groups)) is not None:
            kernel = SharedKernel(groups, tuple(scaled.kernel.shape), scaled=True)
            finding = Finding(site, kernel, note=SCALED)
            return Verdict(call, finding, KeepScaled(scaled.kernel, scaled.factors))
        where = f"dense, zero outside {groups} diagonal blocks, but " if block_diagonal else ""
        return refused(call, site, found.code, where + found.reason, "repeats")
    shape = tuple(found.kernel.shape)
    change = 0.0
    if found.max_difference > 0:
        blocks = diagonal_blocks(weight, groups) if block_diagonal else weight
        change = output_change(blocks, found.kernel, groups, "transpose" in call.op)
    kernel = SharedKernel(groups, shape, block_diagonal, "values", found.max_difference, output_change=change)
    return Verdict(call, Finding(site, kernel), action_of(found.kernel))


def refused(
    call: ConvCall,
    site: ConvSite,
    code: str,
    reason: str,
    stage: Literal["site", "weight", "repeats"] = "weight",
) -> Verdict:
    """The verdict that refuses a call, with its code and its reason."""
    return Verdict(call, Finding(site, refusal=Refusal(site.id, stage, code, reason)))
