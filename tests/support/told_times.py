"""A stopwatch that says how long everything takes in torch: no real time is measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from torch.fx import GraphModule
from two_sites import lowerings

from fx_passes.plan import Plan
from fx_passes.timing.blocks import Ratio
from fx_passes.timing.claims import Block, Timing
from fx_passes.tune.stopwatch import Stopwatch, Way


@dataclass
class Now:
    """The time that has passed, in seconds."""

    seconds: float = 0.0


@dataclass(frozen=True)
class Told(Stopwatch):
    """Says the milliseconds of a candidate by its name, and of a graph by the lowerings in it.

    Args:
        name: of a candidate; ``expand`` is the original. By default it is faster than its lowerings.
        graph: of a graph. By default each lowering makes it faster.
        each: the seconds that a timing takes.
        timed: the names of what was timed, site after site; and of the lowerings of whole graphs.
    """

    name: Callable[[str], float] = lambda name: 1.0 if name == "expand" else 2.0
    graph: Callable[[list[str]], float] = lambda names: 10.0 / (1 + len(names))
    each: float = 1.0
    now: Now = field(default_factory=Now)
    timed: list[list[str]] = field(default_factory=list)

    def alone(self, ways: Mapping[str, Way], inputs: Sequence[Any], seconds: float) -> dict[str, float]:
        self._pass(list(ways))
        return {name: self.name(name) for name in ways}

    def against_first(self, ways: Sequence[Way], inputs: Sequence[Any], seconds: float) -> list[Ratio]:
        first, *others = (self._whole(way) for way in ways)
        return [Ratio(other / first, (other / first, other / first)) for other in others]

    def speed(self, first: Way, second: Way, inputs: Sequence[Any], seconds: float) -> Timing:
        times = [self._whole(way) for way in (first, second, first)]
        return Timing((Block(*((time,) for time in times)),) * 3)

    def _whole(self, way: Way) -> float:
        assert isinstance(way, GraphModule)
        self._pass(lowerings(way))
        return self.graph(lowerings(way))

    def _pass(self, names: list[str]) -> None:
        self.timed.append(names)
        self.now.seconds += self.each


def tell(patch: pytest.MonkeyPatch, **said: Any) -> Told:
    """From now on, tuning in torch believes what is said."""
    now = Now()
    told = Told(lambda: now.seconds, now=now, **said)
    patch.setattr("fx_passes.tune.start.stopwatch_on", lambda device: told)
    return told


def only(*fast: str) -> Callable[[str], float]:
    """These candidates take half of what the original takes, and all others twice as much."""
    return lambda name: 10.0 if name == "expand" else 5.0 if name in fast else 20.0


def names(graph_module: GraphModule) -> list[str]:
    """The choice at each site of a lowered graph."""
    plan: Plan = graph_module.meta["fx_passes_plan"]
    return [choice.proposal.name if choice.proposal else "expand" for choice in plan.choices.values()]
