"""A lowering that wins by itself is kept only if it makes the whole graph faster."""

from __future__ import annotations

import pytest
from desk import Desk, Found, decide, names, table

from fx_passes.tune.whole_graph import _grouped


def test_what_wins_alone_and_slows_the_graph_is_dropped(found: Found) -> None:
    """The graph is faster without one lowering. This one is dropped, the other one stays, and the report has
    the ratios."""
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
    """The graph is not faster with all winners, or not with those that are left."""
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
    """A lowering is dropped if the whole interval is below 1. It is not enough that the middle is."""
    often, _ = found.keys
    desk = Desk(
        table({"polyphase(phases=8)": 5.0}),
        lambda without: 10.0 if without is None else 4.0 if often in without else 5.0,
        noise=0.3,
    )
    plan = decide(desk, found)
    assert plan.made["graph"]["without_ms_ratio"][often] == pytest.approx(0.8)
    assert names(plan) == ["polyphase(phases=8)"] * 3


def test_groups_are_few() -> None:
    """While there is room, each lowering is left out by itself. The rest are left out as one group."""
    keys = [f"key {number}" for number in range(20)]
    groups = _grouped(keys, 15)
    assert [len(group) for group in groups] == [*[1] * 14, 6]
    assert frozenset().union(*groups) == set(keys)
    assert _grouped(keys, 1) == [frozenset(keys)]
    assert _grouped([], 15) == []
