"""Proposals -> plan, by rules that look at the shape of a site alone, never at a clock or a machine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from fx_passes.costs.kernel_times import Work, moved, nanoseconds, original, takes_blocks
from fx_passes.costs.site_sizes import Sizes, sizes_of
from fx_passes.lowerings import MODULES, propose
from fx_passes.plan import Choice, Plan
from fx_passes.records import Exactness, Proposal
from fx_passes.resample.site import Site

# How much less work than the original a lowering has to be: what the count of the work and the time that is
# measured differ by. Fewer gains, rather than any loss.
MARGIN = 1.5
# Channels in a block, of machines with AVX2 and with AVX-512: the same file serves both.
_BLOCKS = (8, 16)
# What open sizes may be: (batch, length of a side). A lowering has to pay for each.
_ASSUMED = ((1, 64), (1, 512), (8, 64), (8, 512))


def static_gain(site: Site, proposal: Proposal) -> float:
    """By how much a proposal is less work than the original, at least; 0.0 where the rules do not know it.

    Example:
        >>> from types import SimpleNamespace
        >>> from fx_passes.resample.axes import Axis, Resample
        >>> axis, shape = Axis(9, shift=4), (1, 3, 256, 256)
        >>> resample = Resample((axis, axis), 3, 1, 1, "zeros", False, shape, shape)
        >>> site = SimpleNamespace(resample=resample, bias=None, transposed=False, siblings=1)
        >>> static_gain(site, Proposal("separable_polyphase", (("phases", 16),), "finite")) > 2
        True
        >>> static_gain(site, Proposal("of another kind", (), "finite"))
        0.0
    """
    resample, bias = site.resample, site.bias
    own_bias = bias is not None and bias.numel() != resample.rows
    gains = []
    for assumed in _ASSUMED[:1] if resample.static else _ASSUMED:
        sizes = sizes_of(resample, own_bias=own_bias, transposed=site.transposed, assumed=assumed)
        for block in _BLOCKS:
            pair = works(sizes, proposal, block, site.siblings)
            if pair is None:
                return 0.0
            gains.append(nanoseconds(pair[0]) / nanoseconds(pair[1]))
    return min(gains)


def preferred(site: Site, proposals: Sequence[Proposal]) -> Proposal:
    """The one of ``proposals`` that the rules take for the least work; the first, where they know none."""
    return max(proposals, key=lambda proposal: static_gain(site, proposal))


def static_choice(site: Site, exactness: Exactness) -> Proposal | None:
    """What the rules choose for a site."""
    proposals, _ = propose(site.resample, site.kernel, exactness, site.siblings)
    if not proposals:
        return None
    best = preferred(site, proposals)
    return best if static_gain(site, best) >= MARGIN else None


def static_plan(sites: Sequence[Site], exactness: Exactness = "finite") -> Plan:
    """The plan that the rules make; the same on every machine."""
    choices = {site.id: Choice(site.key, static_choice(site, exactness)) for site in sites}
    return Plan(choices, {"by": "static rules"})


def works(site: Sizes, proposal: Proposal, block: int, siblings: int = 1) -> tuple[Work, Work] | None:
    """What a site is as it is, and lowered, at the worst place it can have in a graph; None: not known.

    That is between two convolutions that keep their channels in blocks, where the original needs no
    reordering and most lowerings do.
    """
    chain = takes_blocks(site, block)
    before = original(site, block, chain)
    lowering = proposal.lowering
    if proposal.merged:
        together = replace(site, items=site.items * siblings)
        pair = works(together, replace(proposal, merged=False), block)
        copies = moved(siblings * site.read) + moved(siblings * site.written)
        return None if pair is None else (_times(before, siblings), pair[1] + copies)
    count = getattr(MODULES.get(lowering), "work", None)
    if count is None:
        return None
    after: Work = count(site, dict(proposal.params), block)
    # With open sizes, these end in a Reshape as well.
    if chain and not (site.known and lowering in ("separable", "grouped")):
        after += moved(site.read) + moved(site.written)
    return before, after


def _times(work: Work, count: int) -> Work:
    return Counter({name: count * amount for name, amount in work.items()})
