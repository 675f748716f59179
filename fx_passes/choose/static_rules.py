"""Proposals -> a plan, by rules that look only at the shape of a site: never at a clock or a machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import zip_longest

from fx_passes.choose.whole_or_parts import whole_or_parts
from fx_passes.costs.operator_times import Work, moved, nanoseconds, original, takes_blocks, times
from fx_passes.costs.site_sizes import Sizes, sizes_of
from fx_passes.lowerings import MODULES, by_parts, propose
from fx_passes.lowerings.forms import volume
from fx_passes.plan import Choice, Plan
from fx_passes.records import Exactness, Proposal
from fx_passes.resample.axes import Axis
from fx_passes.resample.site import Site

# A lowering must be less work than the original by this factor. Counted work and measured time differ by as
# much. Fewer gains are better than any loss.
MARGIN = 1.5
# Channels in a block, with AVX2 and with AVX-512: one file serves both kinds of machines.
_BLOCKS = (8, 16)
# Assumed for open sizes of which no example is known: (batch, length of a side).
_ASSUMED = ((1, 64), (1, 512), (8, 64), (8, 512))
# Open sizes may be so many times those of the example, or a part of them. Then a lowering must not lose.
_OTHER = 4


def static_gain(site: Site, proposal: Proposal, instead: Sequence[Proposal | None] = ()) -> float:
    """The smallest factor by which a proposal is less work than the original. 0.0 if the rules do not know
    it.

    Args:
        instead: of a site of several parts, what each part would be otherwise; none: they stay as they are.

    With open sizes it is the smallest one at ``site.shapes``. At sizes that are four times as large, and at a
    quarter of them, the proposal need only not be more work: these factors count ``MARGIN`` times.

    Example:
        >>> from types import SimpleNamespace
        >>> from fx_passes.resample.axes import Axis, Resample
        >>> axis, shape = Axis(9, shift=4), (1, 3, 256, 256)
        >>> resample = Resample((axis, axis), 3, 1, 1, "zeros", False, shape, shape)
        >>> site = SimpleNamespace(resample=resample, bias=None, transposed=False, siblings=1, parts=())
        >>> static_gain(site, Proposal("separable_polyphase", (("phases", 16),), "finite")) > 2
        True
        >>> static_gain(site, Proposal("of another kind", (), "finite"))
        0.0
    """
    gain = partial(_gain, site, proposal, instead)
    if site.resample.static:
        return gain(site.resample.in_shape)
    if not site.shapes:
        return min(gain(_open_as(site, batch, side)) for batch, side in _ASSUMED)
    others = [_scaled(site, shape, by) for shape in site.shapes for by in (1 / _OTHER, _OTHER)]
    return min(*map(gain, site.shapes), *(MARGIN * gain(shape) for shape in others))


def _gain(
    site: Site, proposal: Proposal, instead: Sequence[Proposal | None], shape: Sequence[int | None]
) -> float:
    """The smaller of the factors for both kinds of machines, with an input of ``shape``."""
    gains = []
    for block in _BLOCKS:
        pair = works(_sizes(site, shape), proposal, block, site.siblings)
        if pair is None:
            return 0.0
        before = nanoseconds(pair[0])
        if site.parts:
            count = site.siblings if proposal.merged else 1
            before = count * work_of_parts(site.parts, instead, shape, block)
        gains.append(before / nanoseconds(pair[1]))
    return min(gains)


def work_of_parts(
    parts: Sequence[Site], proposals: Sequence[Proposal | None], shape: Sequence[int | None], block: int
) -> float:
    """Nanoseconds of sites in a row, of which the first reads an input of ``shape``."""
    total = 0.0
    for part, proposal in zip_longest(parts, proposals):
        sizes = _sizes(part, shape)
        pair = None if proposal is None else works(sizes, proposal, block, part.siblings)
        if proposal is None or pair is None:
            total += nanoseconds(original(sizes, block, takes_blocks(sizes, block)))
        else:
            total += nanoseconds(pair[1]) / (part.siblings if proposal.merged else 1)
        *leading, channels = shape[: -sizes.dim]
        shape = [
            *leading,
            (channels or 1) * sizes.rows,
            *map(Axis.size, part.resample.axes, shape[-sizes.dim :]),
        ]
    return total


def _sizes(site: Site, shape: Sequence[int | None]) -> Sizes:
    resample, bias = site.resample, site.bias
    # A factor for each group is one more pass over the output, as such a bias is.
    own_bias = bool(resample.factors) or (bias is not None and bias.numel() != resample.rows)
    return sizes_of(resample, own_bias=own_bias, transposed=site.transposed, shape=shape)


def _open_as(site: Site, batch: int, side: int) -> list[int]:
    """The shape of the input, with these numbers for open sizes in front of the axes and along them."""
    given = site.resample.in_shape
    first = len(given) - site.resample.dim
    return [(batch if i < first else side) if size is None else size for i, size in enumerate(given)]


def _scaled(site: Site, shape: Sequence[int], by: float) -> list[int]:
    """``shape`` with its open sizes larger or smaller by a factor."""
    given = zip(shape, site.resample.in_shape, strict=True)
    return [max(round(size * by), 1) if known is None else size for size, known in given]


def preferred(site: Site, proposals: Sequence[Proposal]) -> Proposal:
    """The one of ``proposals`` with the least work by the rules. The first, if the rules know none."""
    return max(proposals, key=lambda proposal: static_gain(site, proposal))


def static_choice(site: Site, exactness: Exactness) -> Proposal | None:
    """What the rules choose for a site; None keeps the convolution."""
    proposals, _ = propose(site.resample, site.kernel, exactness, site.siblings)
    if not proposals:
        return None
    best = preferred(site, proposals)
    return best if static_gain(site, best) >= MARGIN else None


def static_plan(sites: Sequence[Site], exactness: Exactness = "finite") -> Plan:
    """The plan that the rules make. It is the same on every machine."""
    chosen = {site.id: static_choice(site, exactness) for site in sites}
    chosen = whole_or_parts(sites, chosen, is_less_work)
    return Plan({site.id: Choice(site.key, chosen[site.id]) for site in sites}, {"by": "static rules"})


def is_less_work(site: Site, whole: Proposal, parts: Sequence[Proposal | None]) -> bool:
    """Whether a site of several parts is less work as one than the parts are, by the rules."""
    return static_gain(site, whole, parts) >= 1.0


def works(site: Sizes, proposal: Proposal, block: int, siblings: int = 1) -> tuple[Work, Work] | None:
    """The work of a site as it is and of a proposal, at the worst place in a graph. None if it is not known.

    The worst place is between two convolutions that keep their channels in blocks. There the original needs
    no reordering, and most lowerings do.
    """
    chain = takes_blocks(site, block)
    before = original(site, block, chain)
    if proposal.merged:
        together = replace(site, items=site.items * siblings)
        pair = works(together, replace(proposal, merged=False), block)
        copies = moved(siblings * site.read) + moved(siblings * site.written)
        return None if pair is None else (times(before, siblings), pair[1] + copies)
    if by_parts(proposal.lowering, site.dim):
        parts = volume.work(site, proposal, MODULES, block)
        return None if parts is None else (before, parts)
    module = MODULES.get(proposal.lowering)
    count = getattr(module, "work", None)
    if count is None:
        return None
    after: Work = count(site, dict(proposal.params), block)
    # With open sizes, every lowering ends in a Reshape.
    if chain and not (site.known and getattr(module, "KEEPS_BLOCKS", False)):
        after += moved(site.read) + moved(site.written)
    return before, after
