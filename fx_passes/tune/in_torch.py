"""Finds the lowerings with which a graph is fastest in torch, eager or compiled, where the graph is.

First the ways to compute each distinct site run in turns by themselves. Then the whole graph does, with and
without its lowerings (``whole_graph.py``). The original of this comparison is the graph that ``lower`` gives
if nothing is lowered. What was not timed is not lowered.

To compile a way takes seconds. So all ways run eagerly first, and the fastest few are compiled, those of the
slowest sites first.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch.fx import GraphModule

from fx_passes.errors import one_line
from fx_passes.plan import Plan
from fx_passes.records import Exactness, Proposal
from fx_passes.resample.site import Site
from fx_passes.tune.by_times import Timed, fastest_alone, plan_of
from fx_passes.tune.stopwatch import Stopwatch, Way, copied
from fx_passes.tune.ways import ORIGINAL, Ways, ways_of
from fx_passes.tune.whole_graph import Times, Trial, fastest_together

log = logging.getLogger(__name__)

Runs = Literal["eager", "compiled"]
Compiler = Callable[[GraphModule], Way]
# How many proposals of a site are compiled.
_FINALISTS = 3
# The parts of the budget after which no more sites are timed: eagerly before they are compiled, and at all.
_EAGER, _ALONE = 0.1, 0.5


@dataclass(frozen=True)
class Options:
    """How to tune.

    Args:
        stopwatch: takes the times.
        device: where the graph runs, for the reader of the plan.
        budget: seconds for all of it. What has begun is ended.
        exactness: the least exact that may be chosen.
        compiler: compiles a graph, as the result will be; None: it runs eagerly.
    """

    stopwatch: Stopwatch
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    budget: float = 30.0
    exactness: Exactness = "finite"
    compiler: Compiler | None = None


@dataclass
class _Search:
    """The tuning of one graph: its options, when it ends, and the reasons why ways do not run."""

    options: Options
    begun: float
    failed: dict[str, str] = field(default_factory=dict)

    def left(self, part: float = 1.0) -> float:
        """The seconds that are left of a part of the budget."""
        return self.begun + part * self.options.budget - self.options.stopwatch.clock()

    def compiled(self, graph_module: GraphModule) -> Way:
        """``graph_module`` as it will run."""
        return graph_module if self.options.compiler is None else self.options.compiler(graph_module)


def tune_in_torch(
    graph_module: GraphModule,
    sites: Sequence[Site],
    inputs: Sequence[Any],
    carried_out: Callable[[Plan], GraphModule],
    options: Options,
) -> Plan:
    """The plan with which the graph is fastest in torch. Without a claim that it is faster, nothing is
    lowered.

    Args:
        graph_module: the graph before any lowering.
        sites: its sites.
        inputs: of the graph, where it runs.
        carried_out: does what a plan says in a copy of the graph, which may be run.
        options: how to tune.
    """
    search = _Search(options, options.stopwatch.clock())
    with torch.no_grad():
        timed = _timed(ways_of(graph_module, sites, options.exactness), search)
        chosen = fastest_alone(sites, timed, lambda site: None)
        facts: dict[str, Any] = {"timings_ms": {key: list(found.times) for key, found in timed.items()}}
        chosen, facts["graph"] = _together(sites, chosen, inputs, carried_out, search)
    made = {
        "by": "tuning in torch",
        "runs": "eager" if options.compiler is None else "compiled",
        "torch": torch.__version__,
        "device": str(options.device),
        "threads": torch.get_num_threads(),
        "budget": options.budget,
        **facts,
        **({"failed": search.failed} if search.failed else {}),
    }
    return replace(plan_of(sites, chosen), made=made, shares=False)


def _timed(ways: Sequence[Ways], search: _Search) -> dict[str, Timed]:
    """The times of each site by itself, by key."""
    compiles = search.options.compiler is not None
    timed = _time_each(ways, search, _EAGER if compiles else _ALONE)
    if not compiles:
        return timed
    known = [one for one in ways if one.site.key in timed]
    known.sort(key=lambda one: -one.count * sum(at[ORIGINAL] for at in timed[one.site.key].times))
    finalists = [_only(one, _fastest(timed[one.site.key])) for one in known]
    return _time_each(finalists, search, _ALONE, compiles=True)


def _fastest(timed: Timed) -> list[str]:
    """The names of the proposals that took the least time, all shapes together."""
    names = [p.name for p in timed.proposals if all(p.name in at for at in timed.times)]
    return sorted(names, key=lambda name: sum(at[name] for at in timed.times))[:_FINALISTS]


def _only(ways: Ways, names: Sequence[str]) -> Ways:
    return replace(ways, graphs={name: ways.graphs[name] for name in (ORIGINAL, *names)})


def _time_each(
    ways: Sequence[Ways], search: _Search, part: float, *, compiles: bool = False
) -> dict[str, Timed]:
    """The times of each site by itself, as far as this part of the budget goes."""
    timed = {}
    for number, one in enumerate(ways):
        times = []
        for shape in one.shapes:
            inputs = one.inputs(shape)
            ready = _ready(one, inputs, search, part, compiles)
            if len(ready) < 2 or ORIGINAL not in ready:
                break
            share = search.left(part) / (len(ways) - number) / len(one.shapes)
            times.append(search.options.stopwatch.alone(ready, inputs, share))
        if len(times) == len(one.shapes):
            timed[one.site.key] = Timed(one.proposals, times)
    return timed


def _ready(ways: Ways, inputs: Sequence[Any], search: _Search, part: float, compiles: bool) -> dict[str, Way]:
    """The ways that run, after their first run. No further one is begun when the time is over."""
    ready: dict[str, Way] = {}
    for name, graph_module in ways.graphs.items():
        if search.left(part) <= 0:
            break
        try:
            way = search.compiled(graph_module) if compiles else graph_module
            way(*inputs)
        except Exception as error:  # noqa: BLE001 - a compiler may raise anything; such a way is not chosen
            search.failed[f"{name} at {ways.site.id}"] = one_line(error)
            log.warning("%s at %s does not run: %s", name, ways.site.id, one_line(error, 200))
            continue
        ready[name] = way
    return ready


def _together(
    sites: Sequence[Site],
    chosen: Mapping[str, Proposal],
    inputs: Sequence[Any],
    carried_out: Callable[[Plan], GraphModule],
    search: _Search,
) -> tuple[dict[str, Proposal], dict[str, Any]]:
    """The lowerings with which the whole graph is faster than without any, and the ratios that show it. None,
    if there is no time to show it, or if the graph does not run with them."""
    if not chosen or search.left() <= 0:
        return {}, {}

    def ran(kept: Mapping[str, Proposal]) -> Way:
        way = search.compiled(carried_out(replace(plan_of(sites, kept), shares=False)))
        way(*copied(inputs))  # a compiler works now
        return way

    trial = Trial(tuple(chosen), lambda without: ran({k: p for k, p in chosen.items() if k not in without}))
    watch = search.options.stopwatch
    times = Times(watch.against_first, watch.speed, watch.clock)
    try:
        return fastest_together(chosen, trial, ran({}), [inputs], times, search.left())
    except Exception as error:  # noqa: BLE001 - as in ``_ready``
        search.failed["the whole graph"] = one_line(error)
        log.warning("nothing is lowered, because the whole graph does not run: %s", one_line(error, 200))
        return {}, {}
