"""Tuned with several numbers of threads: a lowering must hold with each of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from desk import Desk, Found, found_in, names, table

from export.runtime.target import Target, targets_of
from export.runtime.timed_key import parts_of
from export.speed import Timing
from export.stages import Stages
from export.tune.candidates import Candidates
from export.tune.fastest import fastest_plan
from export.tune.options import Options
from export.tune.subject import Subject
from fx_passes.plan import Plan

EIGHT = "polyphase(phases=8)"
TARGETS = targets_of("onnxruntime", (1, 4))


class Threads(Desk):
    """A desk whose times with four threads are others."""

    with_four: Any = None
    graph_with_four: Any = None

    def time_alone(
        self, candidates: Candidates, library: Any, target: Target, seconds: float
    ) -> dict[str, float]:
        alone = self.with_four if target.threads == 4 else self.alone
        self.timed.append(f"{candidates.key} {target.threads}")
        return {name: alone(candidates.key, name) for name in candidates.names}

    def speed(self, first: Any, second: Any, inputs: Any, target: Target, *, seconds: float) -> Timing:
        graph = self.graph_with_four if target.threads == 4 else self.graph
        return replace(Desk(self.alone, graph).speed(first, second, inputs, target, seconds=seconds))


def tuned(
    found: Found, four: Any, graph_with_four: Any = lambda without: 10.0 - 5.0 * (without is not None)
) -> Plan:
    desk = Threads(table({EIGHT: 2.0}))
    desk.with_four, desk.graph_with_four = four, graph_with_four
    options = Options(targets=TARGETS, budget=20.0, stopwatch=desk.stopwatch)
    subject = Subject(found.graph_module, found.sites, None, ("small",), desk.trial_of)  # type: ignore[arg-type]
    return fastest_plan(subject, found.candidates, found.library, options, Stages())


@pytest.fixture(scope="module")
def found() -> Found:
    return found_in()


def test_fast_with_both(found: Found) -> None:
    """It is taken. The times with the further number have keys of their own."""
    plan = tuned(found, table({EIGHT: 5.0}))
    assert names(plan) == [EIGHT] * 3
    keys = [parts_of(key) for key in plan.made["timings_ms"]]
    assert [(key.site, key.threads) for key in keys] == [
        (key, threads) for key in found.keys for threads in ("", "4")
    ]
    assert [one["threads"] for one in plan.made["graph"]["at_each"]] == [1, 4]


def test_slow_with_one_of_them(found: Found) -> None:
    """It is not taken, although it is faster by the geometric mean. Another one is."""
    plan = tuned(found, table({EIGHT: 10.5}, other=9.0))
    assert EIGHT not in names(plan)
    assert "expand" not in names(plan)


def test_a_graph_that_is_slow_with_one_of_them(found: Found) -> None:
    """Nothing is lowered."""
    plan = tuned(found, table({EIGHT: 5.0}), lambda without: 10.0 + (without is not None))
    assert names(plan) == ["expand"] * 3
