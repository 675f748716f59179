"""Several sites in a row that are one site: either the whole is lowered, or its parts are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from fx_passes.records import Proposal
from fx_passes.resample.site import Site

# Whether a site is better as one, with this proposal, than its parts with these.
Better = Callable[[Site, Proposal, Sequence[Proposal | None]], bool]


def whole_or_parts(
    sites: Sequence[Site], chosen: Mapping[str, Proposal | None], better: Better
) -> dict[str, Proposal | None]:
    """What is chosen for each site by its id, without sites that overlap.

    Args:
        chosen: what is best for each site by itself, by id.
        better: decides between the whole and its parts.
    """
    kept = dict(chosen)
    for site in sites:
        whole = kept[site.id]
        if not site.parts or whole is None:
            continue
        if better(site, whole, [kept[part.id] for part in site.parts]):
            kept.update(dict.fromkeys(part.id for part in site.parts))
        else:
            kept[site.id] = None
    return kept
