"""``lower(model, "tuned", inputs)`` chooses what is faster, and nothing else, whatever the times are."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from told_times import names, only, tell
from torch import Tensor, nn
from torch.export import Dim
from two_sites import Model, both, image, lowerings

from fx_passes import Lower, Plan, lower
from fx_passes.errors import UsageError
from fx_passes.tune.by_times import GAIN

PHASES = "polyphase(phases=16)"


def test_a_slow_lowering_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """All lowerings are slower than the original. The graph is not even timed, and nothing is shared."""
    told = tell(monkeypatch)
    model, x = Model(both), image()
    lowered = lower(model, "tuned", (x,))
    assert names(lowered) == ["expand", "expand"]
    assert [which[0] for which in told.timed] == ["expand", "expand"]
    assert lowered.get_parameter("first").shape == (4, 1, 3, 3)
    assert torch.equal(lowered(x), model(x))


def test_the_fast_one_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of many candidates is faster, at both sites, and in the graph."""
    told = tell(monkeypatch, name=only(PHASES))
    x = image()
    model = Model(both)
    lowered = lower(model, "tuned", (x,))
    assert names(lowered) == [PHASES, PHASES]
    assert lowerings(lowered) == ["polyphase", "polyphase"]
    assert torch.equal(lowered(x), model(x))
    assert ["polyphase"] * 2 in told.timed
    assert [] in told.timed  # the original of the whole graph


@pytest.mark.parametrize(("milliseconds", "count"), [(10 / GAIN + 0.01, 0), (10 / GAIN - 0.01, 2)])
def test_a_small_gain(milliseconds: float, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lowering that gains less than ``GAIN`` is not worth its nodes."""
    times = {"expand": 10.0, PHASES: milliseconds}
    tell(monkeypatch, name=lambda name: times.get(name, 20.0))
    assert len(lowerings(lower(Model(both), "tuned", (image(),)))) == count


def test_what_loses_in_the_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both win by themselves. In the graph, only one lowering is faster than two, and than none."""
    tell(monkeypatch, name=only(PHASES), graph=lambda names: {0: 10.0, 1: 5.0, 2: 7.0}[len(names)])
    model, x = Model(both), image()
    # Without either of them the graph is faster, so neither is known to help.
    assert names(lower(model, "tuned", (x,))) == ["expand", "expand"]
    tell(monkeypatch, name=only(PHASES), graph=lambda names: {0: 10.0, 1: 7.0, 2: 5.0}[len(names)])
    assert names(lower(model, "tuned", (x,))) == [PHASES, PHASES]


@pytest.mark.parametrize("whole", [10.0, 10.001, 15.0])
def test_without_a_claim_nothing_is_lowered(whole: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """The graph with the winners is as fast as the original, or slower."""
    tell(monkeypatch, name=only(PHASES), graph=lambda names: whole if names else 10.0)
    assert names(lower(Model(both), "tuned", (image(),))) == ["expand", "expand"]


def test_no_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is timed, and nothing is lowered."""
    told = tell(monkeypatch, name=only(PHASES))
    assert names(lower(Model(both), "tuned", (image(),), budget=0)) == ["expand", "expand"]
    assert told.timed == []


def test_the_budget_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of it is for the sites. The second one is not timed, and so not lowered."""
    told = tell(monkeypatch, name=only(PHASES), each=6.0)
    lowered = lower(Model(both), "tuned", (image(),), budget=10)
    assert names(lowered) == [PHASES, "expand"]
    assert len([which for which in told.timed if "expand" in which]) == 1
    told = tell(monkeypatch, name=only(PHASES), each=11.0)
    lowered = lower(Model(both), "tuned", (image(),), budget=10)
    assert names(lowered) == ["expand", "expand"]  # no time for the graph: nobody knows if it is faster
    assert len(told.timed) == 1


def test_the_plan_makes_the_same_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is in the meta of the graph. Written and read again, it needs no clock."""
    tell(monkeypatch, name=only(PHASES), each=6.0)
    model, x = Model(both), image()
    tuned = lower(model, "tuned", (x,), budget=10)
    plan = tuned.meta["fx_passes_plan"]
    monkeypatch.setattr("fx_passes.tune.start.stopwatch_on", lambda device: None)
    again = lower(model, Plan.from_json(plan.to_json()), (x,))
    assert again.meta["fx_passes_plan"] == plan
    assert str(again.graph) == str(tuned.graph)
    assert again.get_buffer("second").shape == (4, 1, 3, 3)
    assert {"by", "runs", "device", "threads", "torch", "timings_ms", "graph"} <= plan.made.keys()
    assert plan.made["threads"] == torch.get_num_threads()


def test_other_plans_are_in_the_meta() -> None:
    """The plan that was followed, whoever made it."""
    x = image()
    static = lower(Model(both), "static", (x,))
    assert static.meta["fx_passes_plan"].made == {"by": "static rules"}
    plan = static.meta["fx_passes_plan"]
    assert lower(Model(both), plan, (x,)).meta["fx_passes_plan"] is plan


def test_the_exactness_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not as exact as asked for is not even timed."""
    told = tell(monkeypatch)
    lower(Model(both), "tuned", (image(),), exactness="bitwise")
    assert told.timed == []


def test_a_way_that_does_not_run(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """It is not chosen, and the plan says why."""
    from fx_passes.lowerings import polyphase

    def refuse(self: Any, x: Tensor) -> Tensor:
        raise RuntimeError("no kernel\nfor this")

    monkeypatch.setattr(polyphase.Module, "compute", refuse)
    told = tell(monkeypatch, name=only(PHASES))
    lowered = lower(Model(both), "tuned", (image(),))
    assert names(lowered) == ["expand", "expand"]
    assert not any(PHASES in which for which in told.timed)
    failed = lowered.meta["fx_passes_plan"].made["failed"]
    assert set(failed.values()) == {"no kernel for this"}
    assert "does not run: no kernel for this" in caplog.text


def test_a_graph_that_does_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each lowering runs by itself, and the compiler refuses the whole: nothing is lowered."""
    told = tell(monkeypatch, name=only(PHASES))

    def compiler(graph_module: Any) -> Any:
        if len(lowerings(graph_module)) > 1:
            raise RuntimeError("too large")
        return graph_module

    lowered = lower(Model(both), "tuned", (image(),), runs=compiler)
    assert told.timed
    assert names(lowered) == ["expand", "expand"]
    assert lowered.meta["fx_passes_plan"].made["failed"] == {"the whole graph": "too large"}


def test_few_are_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """All run eagerly. Of each site, the original and the fastest three are compiled; then the graphs."""
    told = tell(monkeypatch, name=only(PHASES), each=0.01)
    compiled: list[Any] = []

    def compiler(graph_module: Any) -> Any:
        compiled.append(graph_module)
        return graph_module

    lowered = lower(Model(both), "tuned", (image(),), runs=compiler)
    assert names(lowered) == [PHASES, PHASES]
    sites = [which for which in told.timed if "expand" in which]
    assert [len(which) for which in sites[2:]] == [4, 4]
    assert all(len(which) > 4 for which in sites[:2])
    assert sum(hasattr(one, "lowered") for one in compiled) == 6
    assert lowered.meta["fx_passes_plan"].made["runs"] == "compiled"


def test_open_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are timed at the sizes of the example, and the graph takes others."""
    told = tell(monkeypatch, name=only(PHASES))
    model = Model(both)
    sizes = ({2: Dim.DYNAMIC, 3: Dim.DYNAMIC},)
    lowered = lower(model, "tuned", (image(),), dynamic_shapes=sizes)
    assert names(lowered) == [PHASES, PHASES]
    assert told.timed
    other = image(2, 4, 31, 57)
    assert torch.equal(lowered(other), model(other))


class Counting(nn.Module):
    """It counts its calls in a buffer, and adds one to its input."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = nn.Buffer(torch.zeros(1))
        self.kernel = nn.Buffer(torch.rand(1, 1, 5, 5).repeat(3, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        self.calls.add_(1)
        x.add_(1)
        return F.conv2d(x, self.kernel, padding=2, groups=3)


def test_tuning_changes_nothing_of_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model and its input are as before, although the whole graph ran, which writes to both."""
    told = tell(monkeypatch, name=only(PHASES))
    model, x = Counting().eval(), torch.zeros(1, 3, 40, 40)
    assert names(lower(model, "tuned", (x,))) == [PHASES]
    assert ["polyphase"] in told.timed
    assert (model.calls.item(), x.abs().max().item()) == (0.0, 0.0)


@pytest.mark.parametrize("runs", ["eager", pytest.param("compiled", marks=pytest.mark.slow)])
def test_in_real_time(runs: Any) -> None:
    """Whatever is faster here: the results are those of the model, and a plan repeats them."""
    model, x = Model(both), image()
    lowered = lower(model, "tuned", (x,), runs=runs, budget=1)
    torch.testing.assert_close(lowered(x), model(x))
    plan = lowered.meta["fx_passes_plan"]
    assert torch.equal(lower(model, plan, (x,))(x), lowered(x))


def test_the_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pass draws inputs of the shapes that torch.export noted."""
    tell(monkeypatch, name=only(PHASES))
    model, x = Model(both), image()
    result = Lower("tuned").call(torch.export.export(model, (x,)).module())
    assert result.modified
    assert names(result.graph_module) == [PHASES, PHASES]
    assert torch.equal(result.graph_module(x), model(x))
    assert not Lower("tuned", budget=0).call(torch.export.export(model, (x,)).module()).modified


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"plan": "fast"}, "plan must be 'static', 'tuned' or a Plan, got 'fast'"),
        ({"runs": "quickly"}, "runs must be 'eager', 'compiled' or a function that compiles, got 'quickly'"),
        ({"budget": -1}, "budget must be a number of seconds, got -1"),
        ({"budget": float("nan")}, "budget must be a number of seconds, got nan"),
        ({"budget": "long"}, "budget must be a number of seconds, got 'long'"),
        ({"exactness": "nearly"}, "exactness must be one of bitwise, reordered, finite, got 'nearly'"),
        ({"example_inputs": None}, "tuning needs example inputs: the shape of input `x` is not known"),
    ],
)
def test_wrong_arguments(given: dict[str, Any], said: str) -> None:
    """One line says what is wrong, and what is right."""
    arguments = {"plan": "tuned", "example_inputs": (image(),), **given}
    with pytest.raises(UsageError) as caught:
        lower(Model(both), **arguments)
    assert str(caught.value) == said
