"""Does a plan fit a model? It must be for its sites, and ask only for what is proposed there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fx_passes.errors import UsageError
from fx_passes.lowerings import MODULES, propose_one
from fx_passes.plan import Plan
from fx_passes.records import Proposal, Refusal
from fx_passes.resample.site import Site


def require_fitting(plan: Plan, sites: Sequence[Site]) -> None:
    """Check that a plan was made for these sites.

    Raises:
        UsageError: it was made for others, or asks for what is not proposed.
    """
    known = {site.id: site for site in sites}
    if plan.choices.keys() != known.keys():
        other = sorted(plan.choices.keys() ^ known.keys())
        raise UsageError(f"the plan does not fit this model: {len(other)} sites differ, first `{other[0]}`")
    for name, choice in plan.choices.items():
        if choice.key != known[name].key:
            reason = f"kernel or shapes of `{name}` are not those it was made for"
            raise UsageError(f"the plan does not fit this model: {reason}")
        if choice.proposal is not None:
            _require_proposed(known[name], choice.proposal)
    _require_whole_groups(plan)
    for site in sites:
        both = [part.id for part in site.parts if plan.choices[part.id].proposal is not None]
        if both and plan.choices[site.id].proposal is not None:
            raise UsageError(f"the plan lowers `{site.id}` as one, and `{both[0]}` by itself")


def carried_over(plan: Plan, sites: Sequence[Site]) -> Plan | None:
    """``plan`` for the same sites with other values of their kernels. None: it does not fit these sites, or a
    kernel has lost what its lowering needs."""
    keys = {site.id: site.key for site in sites}
    if keys.keys() != plan.choices.keys():
        return None
    choices = {name: replace(choice, key=keys[name]) for name, choice in plan.choices.items()}
    moved = replace(plan, choices=choices)
    try:
        require_fitting(moved, sites)
    except UsageError:
        return None
    return moved


def _require_whole_groups(plan: Plan) -> None:
    """All siblings are merged, or none."""
    merged = {
        choice.key: choice for choice in plan.choices.values() if choice.proposal and choice.proposal.merged
    }
    for name, choice in plan.choices.items():
        if choice.key in merged and choice != merged[choice.key]:
            raise UsageError(f"the plan merges siblings of `{name}`, but not `{name}` itself")


def _require_proposed(site: Site, wanted: Proposal) -> None:
    if wanted.lowering not in MODULES:
        raise UsageError(
            f"the plan asks for lowering {wanted.lowering!r} at `{site.id}`; known: {', '.join(MODULES)}"
        )
    answer = propose_one(
        wanted.lowering, site.resample, site.kernel, site.siblings if wanted.merged else None
    )
    if isinstance(answer, Refusal):
        raise UsageError(f"the plan asks for {wanted.lowering} at `{site.id}`, where {answer.reason}")
    # By their text: 16.0 is not 16 here.
    if repr((wanted.params, wanted.exactness)) not in [repr((p.params, p.exactness)) for p in answer]:
        raise UsageError(f"the plan asks for {wanted.name} ({wanted.exactness}) at `{site.id}`, not proposed")
