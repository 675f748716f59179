"""Why a site is rewritten or not: what ``optimize`` would see of it, and what each lowering would cost."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import replace

from export.job.around import around
from export.job.source import Source
from export.read_onnx.candidates import dense_convolutions
from export.report.explanation import Explanation, Way
from export.runtime.target import USUAL
from export.tune.alone import time_alone
from export.tune.candidates import make_candidates
from fx_passes.choose.static_rules import MARGIN, preferred, static_gain, static_plan
from fx_passes.errors import UsageError
from fx_passes.lowerings import MODULES, propose
from fx_passes.records import Finding, Proposal
from fx_passes.resample.site import Site

# Seconds to time the candidates of one site.
_SECONDS = 10.0
_JOINED = (
    "The exported file, in which `optimize` looks, has no such site: the exporter joined it with an equal "
    "one, or computed it."
)


def explain_site(
    source: Source,
    name: str,
    model: str,
    *,
    lowerings: Sequence[str] = (),
    timed: bool = False,
    also: Callable[[], Sequence[Finding]] = lambda: (),
) -> Explanation:
    """What is known of the site ``name`` of the file of ``source``.

    Args:
        lowerings: only these; none: all.
        timed: its candidates are timed by themselves, in onnxruntime.
        also: gives what is found in the graph of the model, whose ids may be others.

    Raises:
        UsageError: there is no such site. It names those with a similar name.
        ExportError: a candidate cannot be exported or run.
    """
    sites, refusals = source.found.sites(source.workloads)
    by_id = {site.id: site for site in sites}
    findings = {finding.id: finding for finding in source.found.findings}
    if name not in by_id and name not in findings:
        dense = dense_convolutions(source.model)
        if name in dense:
            return Explanation(model, name, (), (dense[name],))
        in_model = {finding.id: finding for finding in also()}
        there = _in_file(name, list(in_model.values()), list(findings.values()))
        if there is None and name in in_model:
            return Explanation(model, name, (in_model[name],), (_JOINED,))
        if there is None:
            raise _unknown(name, list(dict.fromkeys([*findings, *by_id, *dense, *in_model])))
        name = there
    if name not in by_id:
        return Explanation(model, name, (findings[name],), refusal=refusals.get(name))
    site = by_id[name]
    explained = Explanation(
        model,
        name,
        tuple(findings[one] for one in site.ids),
        around(site, sites, source.found.graph_module),
    )
    return _with_ways(explained, site, sites, source, lowerings, timed)


def _in_file(name: str, in_model: Sequence[Finding], in_file: Sequence[Finding]) -> str | None:
    """The id in the file of a site that has another one in the graph of the model: that at the same place."""
    same = [(f.op, f.weight_shape) for f in in_model] == [(f.op, f.weight_shape) for f in in_file]
    places = [finding.id for finding in in_model]
    return in_file[places.index(name)].id if same and name in places else None


def _unknown(name: str, known: Sequence[str]) -> UsageError:
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    others = f"did you mean {', '.join(close)}?" if close else f"it has {_some(known)}"
    return UsageError(f"the model has no convolution `{name}`; {others}")


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3]) or "none"
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown


def _with_ways(
    explained: Explanation,
    site: Site,
    sites: Sequence[Site],
    source: Source,
    lowerings: Sequence[str],
    timed: bool,
) -> Explanation:
    proposals, refusals = propose(site.resample, site.kernel, siblings=site.siblings)
    proposed = [p for p in proposals if not lowerings or p.lowering in lowerings]
    names = {proposal.lowering for proposal in proposals}
    times = _times(source, site) if timed and proposed else {}
    ways = [
        Way(
            proposal.lowering,
            proposal.name,
            _does(proposal.lowering),
            exactness=proposal.exactness,
            merged=proposal.merged,
            work=_work(site, proposal),
            ms=times.get(proposal.name),
        )
        for proposal in proposed
    ]
    for name, refusal in refusals.items():
        if name not in names and (not lowerings or name in lowerings):
            ways.append(Way(name, name, _does(name), refusal=refusal))
    chosen, why = _by_rules(site, sites, proposals)
    return replace(explained, ways=tuple(ways), chosen=chosen, rules=why, original_ms=times.get("expand"))


def _times(source: Source, site: Site) -> dict[str, float]:
    """Milliseconds of the original and of each candidate, by name."""
    found, library = make_candidates(source.found.graph_module, [site], "finite")
    if library is None:
        raise UsageError(f"`{site.id}` has open sizes, and no example says at which to time it")
    return time_alone(found[0], library, USUAL, _SECONDS)


def _work(site: Site, proposal: Proposal) -> float | None:
    gain = static_gain(site, proposal)
    return 1 / gain if gain > 0 else None


def _by_rules(site: Site, sites: Sequence[Site], proposals: Sequence[Proposal]) -> tuple[str | None, str]:
    """What the static rules choose for a site, and why."""
    limit = (
        f"A lowering must be at most {1 / MARGIN:.2g} of it, as counted and measured times differ as much."
    )
    plan = static_plan(_overlapping(site, sites))
    choice = plan.choices[site.id].proposal
    if choice is not None:
        return choice.name, f"The static rules choose {choice.name}: {_part(site, choice)}. {limit}"
    for other in sites:
        whole = plan.choices[other.id].proposal if other.id in plan.choices else None
        if whole is not None and set(site.ids) < set(other.ids):
            said = f"The static rules compute it as a part of `{other.id}`, by {whole.name}."
            return None, said
        if whole is not None and set(other.ids) < set(site.ids):
            return None, "The static rules compute its parts by themselves, which is less work."
    if not proposals:
        return None, "The convolution is kept: no lowering computes it."
    best = preferred(site, proposals)
    return (
        None,
        f"The static rules keep the convolution: the best, {best.name}, is {_part(site, best)}. {limit}",
    )


def _part(site: Site, proposal: Proposal) -> str:
    work = _work(site, proposal)
    return "not counted" if work is None else f"about {work:.2g} of the work of the original"


def _overlapping(site: Site, sites: Sequence[Site]) -> list[Site]:
    """The sites that the choice for ``site`` depends on: those with a convolution in common, and so on."""
    within = set(site.ids)
    while True:
        found = [other for other in sites if within & set(other.ids)]
        wider = {name for other in found for name in other.ids}
        if wider == within:
            return found
        within = wider


def _does(lowering: str) -> str:
    """What a lowering computes: how its file begins."""
    text = (MODULES[lowering].__doc__ or "").strip().partition("\n\n")[0]
    return " ".join(text.split()).replace("``", "`")
