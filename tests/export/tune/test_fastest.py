"""What tuning decides, given how long everything takes: a table and a clock of our own, no real speed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim
from torch.fx import GraphModule

from export import optimize
from export.runtime.blocks import Ratio
from export.speed import Block, Timing
from export.stages import Stages
from export.tune.alone import time_alone, time_in_turns
from export.tune.candidates import Candidates, make_candidates
from export.tune.fastest import CLOSE, GAIN, Subject, _grouped, fastest_plan
from export.tune.options import Options, Timings
from export.tune.stopwatch import Stopwatch
from fx_passes.capture.routes import capture
from fx_passes.choose.static_rules import preferred, static_choice
from fx_passes.plan import Plan
from fx_passes.records import EXACTNESS, Exactness, Proposal
from fx_passes.resample.site import Site, lowerable_sites

X = torch.rand(1, 3, 32, 48)


class Blurs(nn.Module):
    """One blur twice, and one of rank 1."""

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
    """A graph with its sites, and the library of their candidates."""

    graph_module: GraphModule
    sites: list[Site]
    candidates: list[Candidates]
    library: Any

    @property
    def keys(self) -> list[str]:
        """Of the sites, each once, in order."""
        return list(dict.fromkeys(site.key for site in self.sites))

    @property
    def chosen(self) -> dict[str, Any]:
        return {c.site.key: c.proposals[0] for c in self.candidates}


def found_in(dtype: torch.dtype = torch.float32) -> Found:
    torch.manual_seed(0)
    graph_module = capture(Blurs().to(dtype).eval(), (X.to(dtype),)).graph_module
    sites, _ = lowerable_sites(graph_module)
    return Found(graph_module, sites, *make_candidates(graph_module, sites, "finite"))


@pytest.fixture(scope="module")
def found() -> Found:
    return found_in()


@dataclass
class Desk:
    """Stands for onnxruntime: says how long everything takes, and keeps what it was asked.

    Args:
        alone: milliseconds of a candidate, by key of the site and name.
        graph: milliseconds of the original file (None), and of the graph without the given keys.
        variable: whether the sites of the graph can be put back.
        noise: half of the interval of the ratios of graphs that lack something.
    """

    alone: Callable[[str, str], float]
    graph: Callable[[frozenset[str] | None], float] = lambda without: 5.0 if without is not None else 10.0
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
        self, candidates: Candidates, library: Any, threads: int, seconds: float
    ) -> dict[str, float]:
        self.timed.append(candidates.site.key)
        self.seconds.append(seconds)
        return {name: self.alone(candidates.site.key, name) for name in candidates.names}

    def against_first(self, files: Sequence[Any], inputs: Any, threads: int, seconds: float) -> list[Ratio]:
        self.seconds.append(seconds)
        ratios = [self.graph(file) / self.graph(files[0]) for file in files[1:]]
        return [Ratio(ratio, (ratio - self.noise, ratio + self.noise)) for ratio in ratios]

    def speed(self, first: Any, second: Any, inputs: Any, *, threads: int, seconds: float) -> Timing:
        self.seconds.append(seconds)
        block = Block(*((self.graph(file),) for file in (first, second, first)))
        return Timing((block,) * 4, threads)

    def trial_of(self, plan: Plan) -> Any:
        self.tried.append(plan)
        keys = {c.key for c in plan.choices.values() if c.proposal} if self.variable else ()
        return SimpleNamespace(originals=dict.fromkeys(keys, 0), write=lambda without: without)


def decide(
    desk: Desk,
    found: Found,
    *,
    sites: Sequence[Site] | None = None,
    exactness: Exactness = "finite",
    timings: Timings | None = None,
    budget: float = 20.0,
) -> Plan:
    """What is decided for the sites of ``found`` if everything takes as long as ``desk`` says."""
    options = Options(
        exactness=exactness, budget=budget, timings=timings or Timings(), stopwatch=desk.stopwatch
    )
    if sites is None and exactness == "finite":
        made = found.candidates, found.library
    else:
        made = make_candidates(found.graph_module, sites or found.sites, exactness)
    # No original file: the desk knows how long it takes.
    subject = Subject(found.graph_module, sites or found.sites, None, (), desk.trial_of)  # type: ignore[arg-type]
    return fastest_plan(subject, *made, options, Stages())


def names(plan: Plan) -> list[str]:
    """What is done at each site."""
    return [choice.proposal.name if choice.proposal else "expand" for choice in plan.choices.values()]


def table(times: Mapping[str, float], other: float = 9.0) -> Callable[[str, str], float]:
    """The same for every site; 10 ms for the original."""
    return lambda key, name: {"expand": 10.0, **times}.get(name, other)


def test_the_fastest_wins(found: Found) -> None:
    """Whatever the static rules think of it."""
    plan = decide(Desk(table({"polyphase(phases=8)": 5.0})), found)
    assert names(plan) == ["polyphase(phases=8)"] * 3


def test_among_those_as_fast_the_rules_choose(found: Found) -> None:
    """Within CLOSE of the fastest, what the static rules prefer, so that noise does not change the file."""
    sites = found.sites
    pair = [Proposal("polyphase", (("phases", phases),), "finite") for phases in (8, 16)]
    first = preferred(sites[0], pair)
    assert [preferred(site, pair) for site in sites] == [first] * 3
    liked, fastest = first.name, next(p.name for p in pair if p != first)
    plan = decide(Desk(table({fastest: 5.0, liked: 5.0 * CLOSE - 0.01})), found)
    assert names(plan) == [liked] * 3
    plan = decide(Desk(table({fastest: 5.0, liked: 5.0 * CLOSE + 0.01})), found)
    assert names(plan) == [fastest] * 3


def test_a_gain_too_small_keeps_the_original(found: Found) -> None:
    """GAIN over the original, or nothing is lowered, and the graph is not even timed."""
    desk = Desk(table({"polyphase(phases=8)": 10.0 / GAIN + 0.01}, other=11.0))
    assert names(decide(desk, found)) == ["expand"] * 3
    assert desk.tried == []
    desk = Desk(table({"polyphase(phases=8)": 10.0 / GAIN - 0.01}, other=11.0))
    assert names(decide(desk, found)) == ["polyphase(phases=8)"] * 3


def test_what_wins_alone_and_slows_the_graph_is_dropped(found: Found) -> None:
    """The graph without it is faster: it goes, the other stays, and the report has the ratios."""
    often, once = found.keys

    def graph(without: frozenset[str] | None) -> float:
        if without is None:
            return 20.0
        return 10.0 - (2.0 if often in without else 0.0) + (3.0 if once in without else 0.0)

    plan = decide(Desk(table({"polyphase(phases=8)": 5.0}), graph), found)
    assert names(plan) == ["expand", "expand", "polyphase(phases=8)"]
    assert plan.made["graph"]["without_ms_ratio"] == pytest.approx({often: 0.8, once: 1.3})
    assert plan.made["graph"]["speedup"] == pytest.approx(20.0 / 8.0)


def test_a_graph_that_is_not_faster_keeps_nothing(found: Found) -> None:
    """Neither with all winners, nor with those that are left."""
    often, _ = found.keys
    alone = table({"polyphase(phases=8)": 5.0})
    same = Desk(alone, lambda without: 10.0)
    assert names(decide(same, found)) == ["expand"] * 3
    assert len(same.tried) == 1
    left = Desk(alone, lambda without: 10.0 if without is None else 12.0 - (often in without))
    assert names(decide(left, found)) == ["expand"] * 3
    every = Desk(alone, lambda without: 10.0 if without is None else 9.0 - len(without))
    assert names(decide(every, found)) == ["expand"] * 3


def test_what_noise_hides_is_kept(found: Found) -> None:
    """A lowering is dropped where the interval lies below 1, not where the middle does."""
    often, _ = found.keys
    desk = Desk(
        table({"polyphase(phases=8)": 5.0}),
        lambda without: 10.0 if without is None else 4.0 if often in without else 5.0,
        noise=0.3,
    )
    plan = decide(desk, found)
    assert plan.made["graph"]["without_ms_ratio"][often] == pytest.approx(0.8)
    assert names(plan) == ["polyphase(phases=8)"] * 3


def test_sites_that_are_the_same_are_timed_once(found: Found) -> None:
    """Two sites of one geometry, kernel and shape: one timing, one choice."""
    desk = Desk(table({"polyphase(phases=8)": 5.0}))
    saved: list[list[str]] = []
    timings = Timings(save=lambda timings: saved.append(list(timings.known)))
    plan = decide(desk, found, timings=timings)
    assert len(found.sites) == 3
    assert [candidates.count for candidates in found.candidates] == [2, 1]
    assert desk.timed == found.keys
    assert saved == [found.keys[:1], found.keys]
    assert plan.made["timings_ms"] == timings.known
    assert set(timings.known[found.keys[0]]) == set(found.candidates[0].names)


def test_what_is_known_is_not_timed_again(found: Found) -> None:
    """It decides as if it had been timed now."""
    first, second = found.keys
    desk = Desk(table({"polyphase(phases=8)": 5.0}))
    known = {first: dict.fromkeys(found.candidates[0].names, 10.0) | {"polyphase(phases=32)": 1.0}}
    plan = decide(desk, found, timings=Timings(known=known))
    assert desk.timed == [second]
    assert names(plan) == ["polyphase(phases=32)", "polyphase(phases=32)", "polyphase(phases=8)"]


def test_known_timings_that_lack_a_candidate(found: Found) -> None:
    """What was timed when only other rounding was allowed is timed again when more is."""
    first, second = found.keys
    known = {key: {"expand": 10.0} for key in (first, second)}
    known[second]["separable"] = 9.0
    desk = Desk(table({"polyphase(phases=8)": 5.0}))
    plan = decide(desk, found, timings=Timings(known=known))
    assert names(plan) == ["polyphase(phases=8)"] * 3


def test_open_sizes_take_the_static_choice(found: Found) -> None:
    """What is fastest depends on the sizes: nothing is timed alone, but the graph has to be faster."""
    shapes = ({2: Dim("height"), 3: Dim("width")},)
    graph_module = capture(Blurs().eval(), (X,), dynamic_shapes=shapes).graph_module
    sites, _ = lowerable_sites(graph_module)
    wanted = [proposal.name if (proposal := static_choice(s, "finite")) else "expand" for s in sites]
    assert set(wanted) > {"expand"}
    desk = Desk(table({}), variable=False)
    assert names(decide(desk, found, sites=sites)) == wanted
    assert desk.timed == []
    slower = Desk(table({}), lambda without: 10.0 if without is None else 11.0, variable=False)
    assert names(decide(slower, found, sites=sites)) == ["expand"] * 3


@pytest.mark.parametrize("exactness", EXACTNESS)
def test_exactness_limits_the_candidates(exactness: Exactness, found: Found) -> None:
    """Nothing less exact is exported or timed; where nothing is left, nothing is."""
    asked: list[str] = []

    def alone(key: str, name: str) -> float:
        asked.append(name)
        return 10.0 if name == "expand" else 5.0

    desk = Desk(alone)
    plan = decide(desk, found, exactness=exactness)
    proposals = {p.name: p.exactness for c in found.candidates for p in c.proposals}
    allowed = {n for n, e in proposals.items() if EXACTNESS.index(e) <= EXACTNESS.index(exactness)}
    assert set(asked) - {"expand"} == allowed
    assert EXACTNESS.index(plan.exactness) <= EXACTNESS.index(exactness)
    assert bool(desk.tried) == bool(allowed)
    assert {"bitwise": 0, "reordered": 1}.get(exactness, len(proposals)) == len(allowed)


def test_the_budget_is_shared(found: Found) -> None:
    """Half of it is for the sites, what one leaves is for the next; the other half is for the graph."""

    def alone(key: str, name: str) -> float:
        desk.now += 1.0 if name == "expand" else 0.0
        return 10.0 if name == "expand" else 5.0

    desk = Desk(alone)
    decide(desk, found, budget=20.0)
    assert desk.seconds[:2] == [10.0 / 2, 10.0 - 1.0]
    assert all(seconds <= 18.0 for seconds in desk.seconds[2:])


def test_sites_without_time_take_the_static_choice(found: Found) -> None:
    """The first site takes all the time there is: the second is decided by the rules, the rest as ever."""

    def alone(key: str, name: str) -> float:
        desk.now += 100.0
        return {"expand": 10.0, "polyphase(phases=8)": 5.0}.get(name, 9.0)

    desk = Desk(alone)
    plan = decide(desk, found, budget=20.0)
    assert desk.timed == found.keys[:1]
    rules = static_choice(found.sites[-1], "finite")
    assert names(plan) == ["polyphase(phases=8)"] * 2 + [rules.name if rules else "expand"]


@dataclass
class Bench:
    """Stands for the sessions of one site's candidates and the clock: a run of each takes as long as told."""

    times: dict[str, float]
    opened: Counter[str] = field(default_factory=Counter)
    now: float = 0.0

    def open(self, name: str) -> Callable[[], None]:
        self.opened[name] += 1
        return partial(self.run, name)

    def run(self, name: str) -> None:
        self.now += self.times[name] / 1e3

    def timed(self, found: Found, seconds: float) -> dict[str, float]:
        """What is said of the first site's candidates; 2 ms for those of which nothing is told."""
        openers = {name: partial(self.open, name) for name in found.candidates[0].names}
        self.times = dict.fromkeys(openers, 2.0) | self.times
        return time_in_turns(openers, seconds, clock=lambda: self.now)


def test_what_is_clearly_slower_drops_out(found: Found) -> None:
    """After one block what is far behind, after two what is behind; the original is timed to the end."""
    far, behind, fast = "polyphase(phases=8)", "polyphase(phases=16)", "polyphase(phases=32)"
    bench = Bench({"expand": 9.0, far: 2.1, behind: 1.5, fast: 1.0})
    times = bench.timed(found, 1e9)
    blocks = {name: bench.opened[name] for name in ("expand", far, behind, fast)}
    assert blocks == {"expand": 6, far: 1, behind: 2, fast: 6}
    assert times == pytest.approx(bench.times)


def test_the_budget_ends_timing(found: Found) -> None:
    """When it is spent, each has been timed in one block, and no more."""
    bench = Bench({})
    bench.timed(found, 0.0)
    assert set(bench.opened.values()) == {1}
    bench = Bench({})
    bench.timed(found, 0.3)
    (blocks,) = set(bench.opened.values())
    assert blocks > 1
    one_block = 6 * sum(bench.times.values()) / 1e3
    assert bench.now <= 0.3 + one_block


def test_groups_are_few() -> None:
    """Many distinct lowerings are varied one by one as far as there is room, and the rest as one group."""
    keys = [f"key {number}" for number in range(20)]
    groups = _grouped(keys, 15)
    assert [len(group) for group in groups] == [*[1] * 14, 6]
    assert frozenset().union(*groups) == set(keys)
    assert _grouped(keys, 1) == [frozenset(keys)]
    assert _grouped([], 15) == []


def test_no_time_no_variants(found: Found) -> None:
    """Where making one graph takes the time there is, no other is made: all lowerings are judged at once."""
    written: list[frozenset[str]] = []
    desk = Desk(table({"polyphase(phases=8)": 5.0}))

    def write(without: frozenset[str]) -> frozenset[str]:
        desk.now += 5.0
        written.append(without)
        return without

    def trial_of(plan: Plan) -> Any:
        return SimpleNamespace(originals=dict.fromkeys(found.keys, 0), write=write)

    desk.trial_of = trial_of  # type: ignore[method-assign]
    plan = decide(desk, found, budget=20.0)
    assert written == [frozenset()]
    assert names(plan) == ["polyphase(phases=8)"] * 3


@pytest.mark.slow
def test_half_precision() -> None:
    """A model in float16, which onnxruntime runs, can be tuned."""
    half = found_in(torch.float16)
    times = time_alone(half.candidates[0], half.library, 1, 0.0)
    assert times.keys() == set(half.candidates[0].names)


@pytest.mark.slow
def test_a_real_tuning(tmp_path: Path) -> None:
    """Nothing pretended: every candidate has a time, what is chosen is one of them, and the file is right."""
    conv = nn.Conv2d(3, 3, 5, padding=2, groups=3)
    conv.weight.data = conv.weight.data[:1].repeat(3, 1, 1, 1)
    report = optimize(nn.Sequential(conv).eval(), (X,), tmp_path / "out.onnx", budget=1.0, seconds=0)
    onnx.checker.check_model(str(tmp_path / "out.onnx"), full_check=True)
    assert report.equivalence.passed
    assert report.lowering == "tuned"
    assert report.plan.made["environment"] == report.environment
    (site,) = report.to_json()["sites"]
    times = {candidate["lowering"]: candidate["ms"] for candidate in site["candidates"]}
    assert {"expand", site["lowering"], "polyphase(phases=16)"} <= times.keys()
    assert all(time > 0 for time in times.values())
