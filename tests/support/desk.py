"""Tunes a small model while the test says how long everything takes: no real time is measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import GraphModule

from export.runtime.target import Target
from export.speed import Timing
from export.stages import Stages
from export.tune.candidates import Candidates, make_candidates
from export.tune.fastest import fastest_plan
from export.tune.options import Options, Timings
from export.tune.stopwatch import Stopwatch
from export.tune.subject import Subject
from fx_passes.capture.routes import capture
from fx_passes.plan import Plan
from fx_passes.records import Exactness
from fx_passes.resample.lowerable import lowerable_sites
from fx_passes.resample.site import Site
from fx_passes.timing.blocks import Ratio
from fx_passes.timing.claims import Block

X = torch.rand(1, 3, 32, 48)


class Blurs(nn.Module):
    """One blur that is used twice, and another of rank 1."""

    def __init__(self) -> None:
        super().__init__()
        self.twice = nn.Buffer(torch.rand(1, 1, 5, 5).repeat(3, 1, 1, 1) / 5)
        self.once = nn.Buffer((torch.rand(1, 1, 7, 1) * torch.rand(1, 1, 1, 7)).repeat(3, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(2):
            x = F.conv2d(x, self.twice, padding=2, groups=3).sin()
        return F.conv2d(x, self.once, padding=3, groups=3)


@dataclass(frozen=True)
class Found:
    """A graph with its sites, their candidates, and the library with the models of the candidates."""

    graph_module: GraphModule
    sites: list[Site]
    candidates: list[Candidates]
    library: Any

    @property
    def keys(self) -> list[str]:
        """The key of each site once, in order."""
        return list(dict.fromkeys(site.key for site in self.sites))


def found_in(dtype: torch.dtype = torch.float32) -> Found:
    """What is found in the model of blurs."""
    torch.manual_seed(0)
    graph_module = capture(Blurs().to(dtype).eval(), (X.to(dtype),)).graph_module
    sites, _ = lowerable_sites(graph_module)
    return Found(graph_module, sites, *make_candidates(graph_module, sites, "finite"))


@dataclass
class Desk:
    """Stands in for onnxruntime: says how long everything takes, and records what it was asked.

    Args:
        alone: gives the milliseconds of a candidate, for the key under which they are kept, and its name.
        graph: gives the milliseconds of the original file (None), or of the graph without these keys.
        large: gives them for the second workload. None: there is one workload.
        variable: whether the sites of the graph can be put back.
        noise: half of the interval of the ratios of graphs that lack something.
    """

    alone: Callable[[str, str], float]
    graph: Callable[[frozenset[str] | None], float] = lambda without: 5.0 if without is not None else 10.0
    large: Callable[[frozenset[str] | None], float] | None = None
    variable: bool = True
    noise: float = 0.0
    timed: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    tried: list[Plan] = field(default_factory=list)
    now: float = 0.0

    @property
    def stopwatch(self) -> Stopwatch:
        return Stopwatch(self.time_alone, self.against_first, self.speed, lambda: self.now)

    def time_alone(
        self, candidates: Candidates, library: Any, target: Target, seconds: float
    ) -> dict[str, float]:
        self.timed.append(candidates.key)
        self.seconds.append(seconds)
        return {name: self.alone(candidates.key, name) for name in candidates.names}

    @property
    def workloads(self) -> Any:
        return ("small",) if self.large is None else ("small", "large")

    def _graph(self, inputs: Any) -> Callable[[frozenset[str] | None], float]:
        return self.large if inputs == "large" and self.large is not None else self.graph

    def against_first(self, files: Sequence[Any], inputs: Any, target: Target, seconds: float) -> list[Ratio]:
        self.seconds.append(seconds)
        graph = self._graph(inputs)
        ratios = [graph(file) / graph(files[0]) for file in files[1:]]
        return [Ratio(ratio, (ratio - self.noise, ratio + self.noise)) for ratio in ratios]

    def speed(self, first: Any, second: Any, inputs: Any, target: Target, *, seconds: float) -> Timing:
        self.seconds.append(seconds)
        block = Block(*((self._graph(inputs)(file),) for file in (first, second, first)))
        return Timing((block,) * 4, target)

    def trial_of(self, plan: Plan) -> Any:
        self.tried.append(plan)
        keys = {c.key for c in plan.choices.values() if c.proposal} if self.variable else ()
        return SimpleNamespace(keys=tuple(keys), write=lambda without: without)


def decide(
    desk: Desk,
    found: Found,
    *,
    sites: Sequence[Site] | None = None,
    exactness: Exactness = "finite",
    timings: Timings | None = None,
    budget: float = 20.0,
) -> Plan:
    """The plan for the sites of ``found``, if everything takes as long as ``desk`` says."""
    options = Options(
        exactness=exactness, budget=budget, timings=timings or Timings(), stopwatch=desk.stopwatch
    )
    if sites is None and exactness == "finite":
        made = found.candidates, found.library
    else:
        made = make_candidates(found.graph_module, sites or found.sites, exactness)
    # No original file: the desk knows how long it takes.
    subject = Subject(found.graph_module, sites or found.sites, None, desk.workloads, desk.trial_of)  # type: ignore[arg-type]
    return fastest_plan(subject, *made, options, Stages())


def names(plan: Plan) -> list[str]:
    """The name of the lowering at each site."""
    return [choice.proposal.name if choice.proposal else "expand" for choice in plan.choices.values()]


def table(times: Mapping[str, float], other: float = 9.0) -> Callable[[str, str], float]:
    """The times of the candidates, the same at every site. The original takes 10 ms."""
    return lambda key, name: {"expand": 10.0, **times}.get(name, other)
