"""Finds the fastest lowerings on this machine: first for each distinct site by itself, then for the whole
graph (``fx_passes/tune/whole_graph.py``).

By themselves, the candidates of a site run in turns, and those that are clearly slower drop out. A site with
open sizes is timed at each shape that it has in one of the workloads, and every site with each number of
threads. Its lowering must hold with all of them, and is the best by the geometric mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx_ir as ir

from export.report.text import counted
from export.runtime.arrays import shape_text
from export.runtime.target import Target
from export.runtime.timed_key import timed_with
from export.stages import Stages
from export.tune.candidates import Candidates, make_candidates
from export.tune.options import Options
from export.tune.subject import Subject
from fx_passes.choose.static_rules import static_choice
from fx_passes.plan import Plan
from fx_passes.records import Proposal
from fx_passes.resample.site import Site
from fx_passes.tune.by_times import Timed, fastest_alone, plan_of
from fx_passes.tune.whole_graph import Times, Trial, fastest_together


def tune(subject: Subject, options: Options, stages: Stages) -> Plan:
    """The plan that measures fastest in the target on this machine.

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
            trial = subject.trial_of(plan_of(subject.sites, chosen))
        with stages.stage(f"timing the whole graph with {counted(len(chosen), 'lowering')}"):
            chosen, made["graph"] = _together(chosen, trial, subject, options, left)
    return replace(plan_of(subject.sites, chosen), made=made)


def _chosen(sites: Sequence[Site], candidates: Sequence[Candidates], options: Options) -> dict[str, Proposal]:
    """The lowering of each distinct site by itself. It follows from its times, or from the rules if there are
    none."""
    known = options.timings.known
    by_key: dict[str, list[Candidates]] = {}
    for candidate in candidates:
        by_key.setdefault(candidate.site.key, []).append(candidate)
    keys = {
        key: [_key(way, at, options) for way in ways for at in options.targets]
        for key, ways in by_key.items()
    }
    timed = {
        key: Timed(ways[0].proposals, [known[place] for place in keys[key]])
        for key, ways in by_key.items()
        if all(place in known for place in keys[key])
    }

    def by_rules(site: Site) -> Proposal | None:
        ruled = site.key in by_key or not site.resample.static
        return static_choice(site, options.exactness) if ruled else None

    return fastest_alone(sites, timed, by_rules)


def _key(candidate: Candidates, target: Target, options: Options) -> str:
    """Under which the times of a candidate are kept. The first number of threads is not named."""
    return candidate.key if target == options.target else timed_with(candidate.key, target.threads)


def _together(
    chosen: Mapping[str, Proposal], trial: Trial[Path], subject: Subject, options: Options, seconds: float
) -> tuple[dict[str, Proposal], dict[str, Any]]:
    """What ``fastest_together`` finds with the files of the trial, for each input and number of threads."""
    stopwatch = options.stopwatch
    setups = [(inputs, target) for target in options.targets for inputs in subject.workloads]
    times: Times[Path] = Times(
        lambda files, setup, left: stopwatch.against_first(files, setup[0], setup[1], left),
        lambda first, second, setup, left: stopwatch.speed(first, second, *setup, seconds=left),
        stopwatch.clock,
    )
    return fastest_together(chosen, trial, subject.baseline, setups, times, seconds)


def _time_sites(
    candidates: Sequence[Candidates], library: ir.Model | None, options: Options, stages: Stages
) -> None:
    """Time the candidates of the sites without known times, for at most half of the budget."""
    timings, stopwatch = options.timings, options.stopwatch
    runs = [(c, target, _key(c, target, options)) for c in candidates for target in options.targets]
    unknown = [run for run in runs if not set(run[0].names) <= timings.known.get(run[2], {}).keys()]
    end = stopwatch.clock() + 0.5 * options.budget
    for number, (candidate, target, key) in enumerate(unknown):
        left = end - stopwatch.clock()
        if left <= 0:
            return
        threads = f" with {counted(target.threads, 'thread')}" if len(options.targets) > 1 else ""
        where = f"{candidate.site.id} at {shape_text(candidate.shape)}{threads}"
        stages.step(f"timing {where} ({number + 1} of {len(unknown)})")
        assert library is not None
        share = left / (len(unknown) - number)
        timings.known[key] = stopwatch.alone(candidate, library, target, share)
        timings.save(timings)
