"""A site as it is, and lowered, in counts of what onnxruntime does: what the static rules compare."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from fx_passes.costs import Work, moved, original, takes_blocks
from fx_passes.lowerings import MODULES
from fx_passes.records import Proposal
from fx_passes.site_sizes import Sizes


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
