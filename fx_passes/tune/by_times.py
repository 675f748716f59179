"""The lowering of each site that was fastest by itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from fx_passes.choose.static_rules import is_less_work, preferred
from fx_passes.choose.whole_or_parts import whole_or_parts
from fx_passes.plan import Choice, Plan
from fx_passes.records import Proposal
from fx_passes.resample.site import Site
from fx_passes.timing.blocks import geometric_mean
from fx_passes.timing.claims import HOLDS

# A lowering has to be this much faster than the original, alone and in the graph, to be worth its nodes.
GAIN = 1.03
# Among candidates this close to the fastest, the first in order of preference is taken: the same each time.
# Times of one candidate differ by as much between two runs of a noisy machine.
CLOSE = 1.08


@dataclass(frozen=True)
class Timed:
    """The times of the sites of one key.

    Args:
        proposals: the ways to compute the site, besides the original.
        times: the milliseconds of each way by its name, ``expand`` for the original, at one shape after the
            other. Ways that were not timed are missing.
    """

    proposals: Sequence[Proposal]
    times: Sequence[Mapping[str, float]]


def fastest_alone(
    sites: Sequence[Site], timed: Mapping[str, Timed], otherwise: Callable[[Site], Proposal | None]
) -> dict[str, Proposal]:
    """The lowering of each distinct site, by key. Sites that are best as they are have none.

    Args:
        timed: by key.
        otherwise: decides for a site that was not timed.
    """
    chosen = {}
    for site in sites:
        proposal = _winner(site, timed[site.key]) if site.key in timed else otherwise(site)
        if proposal is not None:
            chosen[site.key] = proposal
    best = whole_or_parts(
        sites, {site.id: chosen.get(site.key) for site in sites}, partial(_is_faster, timed)
    )
    return {site.key: proposal for site in sites if (proposal := best[site.id]) is not None}


def plan_of(sites: Sequence[Site], chosen: Mapping[str, Proposal]) -> Plan:
    """The plan that lowers the sites of these keys."""
    return Plan({site.id: Choice(site.key, chosen.get(site.key)) for site in sites})


def _winner(site: Site, timed: Timed) -> Proposal | None:
    """The fastest proposal, or one that is as good and that the static rules prefer. None: the original is
    fastest."""
    gains = {
        p: [at["expand"] / at[p.name] for at in timed.times]
        for p in timed.proposals
        if all(p.name in at for at in timed.times)
    }
    typical = {p: geometric_mean(gain) for p, gain in gains.items() if min(gain) >= HOLDS}
    best = max(typical.values(), default=0.0)
    if best < GAIN:
        return None
    return preferred(site, [p for p, gain in typical.items() if gain * CLOSE >= best])


def _is_faster(
    timed: Mapping[str, Timed], site: Site, whole: Proposal, parts: Sequence[Proposal | None]
) -> bool:
    """Whether a site of several parts is faster as one, by what was timed; else by the rules."""
    times = [_typical(timed, site, whole.name)]
    times += [
        _typical(timed, part, p.name if p else "expand") for part, p in zip(site.parts, parts, strict=True)
    ]
    if None in times:
        return is_less_work(site, whole, parts)
    one, *several = (time or 0.0 for time in times)
    return one <= sum(several)


def _typical(timed: Mapping[str, Timed], site: Site, name: str) -> float | None:
    """The geometric mean of the times of one way at all shapes, of one sibling. None: it was not timed."""
    times = [at.get(name) for at in timed[site.key].times] if site.key in timed else []
    known = [time for time in times if time is not None]
    if not times or len(known) < len(times):
        return None
    return geometric_mean(known) / site.siblings
