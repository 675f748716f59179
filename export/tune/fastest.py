"""Finds the fastest lowerings on this machine: first for each distinct site by itself, then for the whole
graph (``whole_graph.py``).

By themselves, the candidates of a site run in turns, and those that are clearly slower drop out. A site with
open sizes is timed at each shape that it has in one of the workloads. Its lowering must hold at all of them,
and is the best by the geometric mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import onnx_ir as ir

from export.runtime.arrays import shape_text
from export.stages import Stages
from export.tune.candidates import Candidates, make_candidates
from export.tune.options import Options
from export.tune.subject import Subject
from export.tune.whole_graph import fastest_together
from fx_passes.choose.static_rules import is_less_work, preferred, static_choice
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


def tune(subject: Subject, options: Options, stages: Stages) -> Plan:
    """The plan that measures fastest in onnxruntime on this machine.

    ``options.budget`` is the time for timing and for opening sessions. Exports are stages of their own. If no
    time is left for a site, the static rules decide. New times are added to ``options.timings``.

    Raises:
        ExportError: the candidates or the lowered graph cannot be exported or run.
    """
    with stages.stage("exporting the candidates"):
        candidates, library = make_candidates(subject.graph_module, subject.sites, options.exactness)
    return fastest_plan(subject, candidates, library, options, stages)


def fastest_plan(
    subject: Subject,
    candidates: Sequence[Candidates],
    library: ir.Model | None,
    options: Options,
    stages: Stages,
) -> Plan:
    """The fastest plan among the proposals of ``candidates``. ``library`` has their models; None: there are
    none."""
    clock = options.stopwatch.clock
    end = clock() + options.budget
    with stages.stage("timing the candidates"):
        _time_sites(candidates, library, options, stages)
    left = end - clock()
    chosen = _chosen(subject.sites, candidates, options)
    made: dict[str, Any] = {"by": "tuning", "timings_ms": options.timings.known}
    if chosen:
        with stages.stage("exporting the whole graph with the fastest lowerings"):
            trial = subject.trial_of(_plan(subject.sites, chosen))
        with stages.stage(f"timing the whole graph with {_count(len(chosen), 'lowering')}"):
            chosen, made["graph"] = fastest_together(chosen, trial, subject, options, left)
    return replace(_plan(subject.sites, chosen), made=made)


def _plan(sites: Sequence[Site], chosen: Mapping[str, Proposal]) -> Plan:
    return Plan({site.id: Choice(site.key, chosen.get(site.key)) for site in sites})


def _chosen(sites: Sequence[Site], candidates: Sequence[Candidates], options: Options) -> dict[str, Proposal]:
    """The lowering of each distinct site by itself. It follows from its times, or from the rules if there are
    none."""
    known = options.timings.known
    by_key: dict[str, list[Candidates]] = {site.key: [] for site in sites}
    for candidate in candidates:
        by_key[candidate.site.key].append(candidate)
    chosen = {}
    for site in sites:
        ways = by_key[site.key]
        if ways and all(way.key in known for way in ways):
            proposal = _winner(ways[0], [known[way.key] for way in ways])
        elif ways or not site.resample.static:
            proposal = static_choice(site, options.exactness)
        else:
            continue
        if proposal is not None:
            chosen[site.key] = proposal
    best = whole_or_parts(
        sites, {site.id: chosen.get(site.key) for site in sites}, partial(_is_faster, known)
    )
    return {site.key: proposal for site in sites if (proposal := best[site.id]) is not None}


def _is_faster(
    known: Mapping[str, Mapping[str, float]], site: Site, whole: Proposal, parts: Sequence[Proposal | None]
) -> bool:
    """Whether a site of several parts is faster as one, by what was timed; else by the rules."""
    times = [_typical(known, site, whole.name)]
    times += [
        _typical(known, part, p.name if p else "expand") for part, p in zip(site.parts, parts, strict=True)
    ]
    if None in times:
        return is_less_work(site, whole, parts)
    one, *several = (time or 0.0 for time in times)
    return one <= sum(several)


def _typical(known: Mapping[str, Mapping[str, float]], site: Site, name: str) -> float | None:
    """The geometric mean of the times of one way at all shapes, of one sibling. None: it was not timed."""
    times = [at.get(name) for key, at in known.items() if key.partition("@")[0] == site.key]
    known_times = [time for time in times if time is not None]
    if not times or len(known_times) < len(times):
        return None
    return geometric_mean(known_times) / site.siblings


def _time_sites(
    candidates: Sequence[Candidates], library: ir.Model | None, options: Options, stages: Stages
) -> None:
    """Time the candidates of the sites without known times, for at most half of the budget."""
    timings, stopwatch = options.timings, options.stopwatch
    unknown = [c for c in candidates if not set(c.names) <= timings.known.get(c.key, {}).keys()]
    end = stopwatch.clock() + 0.5 * options.budget
    for number, candidate in enumerate(unknown):
        left = end - stopwatch.clock()
        if left <= 0:
            return
        where = f"{candidate.site.id} at {shape_text(candidate.shape)}"
        stages.say(f"timing {where} ({number + 1} of {len(unknown)})")
        assert library is not None
        share = left / (len(unknown) - number)
        timings.known[candidate.key] = stopwatch.alone(candidate, library, options.threads, share)
        timings.save(timings)


def _winner(candidates: Candidates, times: Sequence[Mapping[str, float]]) -> Proposal | None:
    """The fastest proposal, or one that is as good and that the static rules prefer. None: the original is
    fastest.

    Args:
        candidates: the proposals.
        times: the milliseconds of each, by name, at one shape after the other.
    """
    gains = {
        p: [at["expand"] / at[p.name] for at in times]
        for p in candidates.proposals
        if all(p.name in at for at in times)
    }
    typical = {p: geometric_mean(gain) for p, gain in gains.items() if min(gain) >= HOLDS}
    best = max(typical.values(), default=0.0)
    if best < GAIN:
        return None
    return preferred(candidates.site, [p for p, gain in typical.items() if gain * CLOSE >= best])


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
