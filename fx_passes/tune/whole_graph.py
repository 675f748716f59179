"""Which of the lowerings that won by themselves make the whole graph faster?

In the graph, a lowering that won by itself can lose: it may break a chain of convolutions that onnxruntime
keeps in blocks of channels. So the graph with all winners runs in turns with graphs that lack some of them. A
lowering with which the graph is slower is dropped. The graph that is left must be faster than the original,
by the rule of ``timing/claims.py`` and on the same inputs. Otherwise nothing is lowered.

All of this is measured with each of the workloads, and with each number of threads.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from fx_passes.records import Proposal
from fx_passes.timing.blocks import Ratio, geometric_mean
from fx_passes.timing.claims import HOLDS, Timing, faster_together

# The largest number of graphs, each without one group of sites. More would need too much memory.
_GROUPS = 15

T = TypeVar("T")
# A graph that can be timed: a file, or a function.
Ran = TypeVar("Ran")


@dataclass(frozen=True)
class Trial(Generic[Ran]):
    """A graph with lowered sites. Any of them can be put back without capturing it again.

    Args:
        keys: the keys of the sites that are lowered.
        write: gives the graph with the sites of some keys as they were.
    """

    keys: tuple[str, ...]
    write: Callable[[frozenset[str]], Ran]


@dataclass(frozen=True)
class Times(Generic[Ran]):
    """Takes the times of graphs.

    Args:
        against_first: of graphs, for some inputs and within so many seconds: the time of each over that of
            the first.
        speed: of the original and another graph, as ``against_first``: both against each other.
        clock: gives seconds.
    """

    against_first: Callable[[Sequence[Ran], Any, float], list[Ratio]]
    speed: Callable[[Ran, Ran, Any, float], Timing]
    clock: Callable[[], float] = time.perf_counter


def fastest_together(
    chosen: Mapping[str, Proposal],
    trial: Trial[Ran],
    baseline: Ran,
    workloads: Sequence[Any],
    times: Times[Ran],
    seconds: float,
) -> tuple[dict[str, Proposal], dict[str, Any]]:
    """The lowerings of ``chosen`` with which the whole graph is faster, and the ratios that show it.

    Args:
        chosen: the winners, by key.
        trial: the graph with all of them.
        baseline: the original.
        workloads: the inputs, as ``times`` takes them.
        times: takes the times.
        seconds: the limit of all of it. The last comparison is made in any case.
    """
    end = times.clock() + seconds
    best = trial.write(frozenset())
    made_in = times.clock() - (end - seconds)
    # Each graph is made once, and opened in two blocks or more: a third of the time is for making them.
    count = min(_GROUPS, int(seconds / 3 / max(made_in, 1e-3)))
    groups = _grouped([key for key in chosen if key in trial.keys], count)
    dropped: frozenset[str] = frozenset()
    ratios: dict[str, float] = {}
    if len(groups) > 1:
        files = [best, *(trial.write(group) for group in groups)]
        against_first = partial(times.against_first, files)
        middle = times.clock() + 0.5 * (end - times.clock())
        found = _with_each(workloads, times.clock, middle, against_first)
        for group, without in zip(groups, zip(*found, strict=True), strict=True):
            # The time without the group over the time with it: above 1, the graph is faster with it.
            ratios.update(dict.fromkeys(group, geometric_mean([ratio.value for ratio in without])))
            dropped |= group if _loses(without) else frozenset()
    kept = {key: proposal for key, proposal in chosen.items() if key not in dropped}
    if dropped and kept:
        best = trial.write(dropped)
    timings = _with_each(workloads, times.clock, end, partial(times.speed, baseline, best))
    facts = {"without_ms_ratio": ratios, **timings[0].summary()}
    if len(timings) > 1:
        facts["at_each"] = [timing.summary() for timing in timings]
    return (kept if faster_together(timings) else {}), facts


def _with_each(
    workloads: Sequence[Any],
    clock: Callable[[], float],
    end: float,
    measure: Callable[[Any, float], T],
) -> list[T]:
    """What ``measure`` finds with each workload and target, in equal parts of the time that is left."""
    found = []
    for number, inputs in enumerate(workloads):
        found.append(measure(inputs, (end - clock()) / (len(workloads) - number)))
    return found


def _loses(without: Sequence[Ratio]) -> bool:
    """Whether a graph is faster without some lowerings: with all setups together, or clearly with one."""
    highest = [ratio.ci95[1] for ratio in without]
    return geometric_mean(highest) < 1.0 or min(highest) < HOLDS


def _grouped(keys: Sequence[str], count: int) -> list[frozenset[str]]:
    """At most ``count`` groups of keys: one key each, and the rest together."""
    groups = [frozenset([key]) for key in keys[: max(count - 1, 0)]]
    if rest := frozenset(keys[len(groups) :]):
        groups.append(rest)
    return groups
