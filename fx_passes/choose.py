"""Proposals -> plan, by rules or by a cost that is measured elsewhere and given in."""

from __future__ import annotations

from collections.abc import Sequence

from fx_passes.lowerings import propose
from fx_passes.plan import Choice, Plan, Site
from fx_passes.records import Exactness, Proposal

# Below this many outputs a site takes microseconds, whatever computes it.
_SMALL = 4096


def static_choice(site: Site, exactness: Exactness) -> Proposal | None:
    """What the rules choose for a site: they look at its geometry alone, never at a clock or a machine."""
    outputs = site.resample.outputs
    if outputs is not None and outputs < _SMALL:
        return None
    proposals, _ = propose(site.resample, site.kernel, exactness)
    best = max(proposals, key=lambda proposal: proposal.static, default=None)
    return best if best is not None and best.static > 0 else None


def static_plan(sites: Sequence[Site], exactness: Exactness = "finite") -> Plan:
    """The plan that the rules make; the same on every machine."""
    choices = {site.id: Choice(site.key, static_choice(site, exactness)) for site in sites}
    return Plan(choices, {"by": "static rules"})
