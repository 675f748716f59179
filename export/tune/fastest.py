"""Which lowering is fastest here: each distinct site by itself first, then the graph as a whole.

Alone, the candidates of a site take turns, and those that are clearly slower drop out. In the graph, a
lowering that won alone can lose, where it breaks a chain of convolutions that onnxruntime keeps in blocks of
channels: so the graph with all winners is timed in turn with graphs that lack some of them, and what the
graph is slower with goes. What is left has to be faster than the original file by the rule of ``speed.py``,
on the inputs that the result is measured on, or nothing is lowered.
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
# Graphs that differ in one group of sites each; more would take too much memory.
_GROUPS = 15


@dataclass(frozen=True)
class Subject:
    """What lowerings are chosen for.

    Args:
        graph_module: the captured graph, nothing lowered; it is not changed.
        sites: the sites in it that may be lowered.
        baseline: the stock export of the model.
        inputs: arrays in the order of the inputs of ``baseline``; what is chosen is fastest for their sizes.
        trial_of: the graph with a plan carried out, which can be varied and timed.
    """

    graph_module: GraphModule
    sites: Sequence[Site]
    baseline: Path
    inputs: Sequence[Array]
    trial_of: Callable[[Plan], Trial]


def tune(subject: Subject, options: Options, stages: Stages) -> Plan:
    """The plan that is measurably fastest in onnxruntime on this machine.

    ``options.budget`` is for timing, the opening of sessions included; exports are stages of their own. A
    site for which no time is left is decided by the static rules. ``options.timings`` is completed.

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
    """The fastest plan among what ``candidates`` propose; ``library`` has them, None where there are none."""
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
    """What each distinct site is lowered by if it is alone: by its times, without them by the rules."""
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
    """Time the candidates of the sites that are not known yet, for half of the budget at most."""
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
    """The fastest proposal, or one as good that the static rules prefer; None where the original is."""
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
    """What of ``chosen`` the whole graph is faster with, and the ratios that say so."""
    stopwatch, threads = options.stopwatch, options.threads
    end = stopwatch.clock() + seconds
    best = trial.write(frozenset())
    made_in = stopwatch.clock() - (end - seconds)
    # Each graph is made once, and opened in two blocks or more: a third of the time is for making them.
    count = min(_GROUPS, int(seconds / 3 / max(made_in, 1e-3)))
    groups = _grouped([key for key in chosen if key in trial.originals], count)
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
    """At most ``count`` groups of keys: one each, and what is left together."""
    groups = [frozenset([key]) for key in keys[: max(count - 1, 0)]]
    if rest := frozenset(keys[len(groups) :]):
        groups.append(rest)
    return groups


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
