"""Finds the fastest lowerings on this machine: first for each distinct site by itself, then for the whole
graph.

By themselves, the candidates of a site run in turns, and those that are clearly slower drop out. In the
graph, a lowering that won by itself can lose: it may break a chain of convolutions that onnxruntime keeps in
blocks of channels. So the graph with all winners runs in turns with graphs that lack some of them. A lowering
with which the graph is slower is dropped. The graph that is left must be faster than the original file, by
the rule of ``speed.py`` and on the same inputs. Otherwise nothing is lowered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx_ir as ir
from torch.fx import GraphModule

from export.runtime.session import Array
from export.stages import Stages
from export.tune.candidates import Candidates, make_candidates
from export.tune.options import Options
from export.tune.trial import Trial
from fx_passes.choose.static_rules import preferred, static_choice
from fx_passes.plan import Choice, Plan
from fx_passes.records import Proposal
from fx_passes.resample.site import Site

# A lowering has to be this much faster than the original, alone and in the graph, to be worth its nodes.
GAIN = 1.03
# Among candidates this close to the fastest, the first in order of preference is taken: the same each time.
# Times of one candidate differ by as much between two runs of a noisy machine.
CLOSE = 1.08
# The largest number of graphs, each without one group of sites. More would need too much memory.
_GROUPS = 15


@dataclass(frozen=True)
class Subject:
    """The graph for which lowerings are chosen.

    Args:
        graph_module: the captured graph, before any lowering. It is not changed.
        sites: the sites in it that may be lowered.
        baseline: the stock export of the model.
        inputs: arrays in the order of the inputs of ``baseline``. The choice is the fastest for their sizes.
        trial_of: carries out a plan on the graph. The result can be varied and timed.
    """

    graph_module: GraphModule
    sites: Sequence[Site]
    baseline: Path
    inputs: Sequence[Array]
    trial_of: Callable[[Plan], Trial]


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
            chosen, made["graph"] = _in_graph(chosen, trial, subject, options, left)
    return replace(_plan(subject.sites, chosen), made=made)


def _plan(sites: Sequence[Site], chosen: Mapping[str, Proposal]) -> Plan:
    return Plan({site.id: Choice(site.key, chosen.get(site.key)) for site in sites})


def _chosen(sites: Sequence[Site], candidates: Sequence[Candidates], options: Options) -> dict[str, Proposal]:
    """The lowering of each distinct site by itself. It follows from its times, or from the rules if there are
    none."""
    known = options.timings.known
    winners = {
        c.site.key: _winner(c, known[c.site.key])
        if c.site.key in known
        else static_choice(c.site, options.exactness)
        for c in candidates
    }
    for site in sites:
        if not site.resample.static:
            winners[site.key] = static_choice(site, options.exactness)
    return {key: proposal for key, proposal in winners.items() if proposal is not None}


def _time_sites(
    candidates: Sequence[Candidates], library: ir.Model | None, options: Options, stages: Stages
) -> None:
    """Time the candidates of the sites without known times, for at most half of the budget."""
    timings, stopwatch = options.timings, options.stopwatch
    unknown = [c for c in candidates if not set(c.names) <= timings.known.get(c.site.key, {}).keys()]
    end = stopwatch.clock() + 0.5 * options.budget
    for number, candidate in enumerate(unknown):
        left = end - stopwatch.clock()
        if left <= 0:
            return
        stages.say(f"timing {candidate.site.id} ({number + 1} of {len(unknown)} distinct sites)")
        assert library is not None
        share = left / (len(unknown) - number)
        timings.known[candidate.site.key] = stopwatch.alone(candidate, library, options.threads, share)
        timings.save(timings)


def _winner(candidates: Candidates, times: Mapping[str, float]) -> Proposal | None:
    """The fastest proposal, or one that is as good and that the static rules prefer. None: the original is
    fastest."""
    known = [p for p in candidates.proposals if p.name in times]
    if not known:
        return None
    best = min(times[p.name] for p in known)
    if best * GAIN > times["expand"]:
        return None
    close = [p for p in known if times[p.name] <= best * CLOSE]
    return preferred(candidates.site, close)


def _in_graph(
    chosen: dict[str, Proposal], trial: Trial, subject: Subject, options: Options, seconds: float
) -> tuple[dict[str, Proposal], dict[str, Any]]:
    """The lowerings of ``chosen`` with which the whole graph is faster, and the ratios that show it."""
    stopwatch, threads = options.stopwatch, options.threads
    end = stopwatch.clock() + seconds
    best = trial.write(frozenset())
    made_in = stopwatch.clock() - (end - seconds)
    # Each graph is made once, and opened in two blocks or more: a third of the time is for making them.
    count = min(_GROUPS, int(seconds / 3 / max(made_in, 1e-3)))
    groups = _grouped([key for key in chosen if key in trial.keys], count)
    dropped: frozenset[str] = frozenset()
    ratios: dict[str, float] = {}
    if len(groups) > 1:
        files = [best, *(trial.write(group) for group in groups)]
        left = end - stopwatch.clock()
        found = stopwatch.against_first(files, subject.inputs, threads, 0.5 * left)
        for group, ratio in zip(groups, found, strict=True):
            # The time without the group over the time with it: above 1, the graph is faster with it.
            ratios.update(dict.fromkeys(group, ratio.value))
            if ratio.ci95[1] < 1.0:
                dropped |= group
    kept = {key: proposal for key, proposal in chosen.items() if key not in dropped}
    if dropped and kept:
        best = trial.write(dropped)
    left = end - stopwatch.clock()
    timing = stopwatch.speed(subject.baseline, best, subject.inputs, threads=threads, seconds=left)
    facts = {
        "without_ms_ratio": ratios,
        "speedup": timing.speedup,
        "ci95": list(timing.ci95),
        "control_ci95": list(timing.control.ci95),
        "blocks": len(timing.blocks),
    }
    return (kept if timing.faster else {}), facts


def _grouped(keys: Sequence[str], count: int) -> list[frozenset[str]]:
    """At most ``count`` groups of keys: one key each, and the rest together."""
    groups = [frozenset([key]) for key in keys[: max(count - 1, 0)]]
    if rest := frozenset(keys[len(groups) :]):
        groups.append(rest)
    return groups


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
