"""Tuning shares its time between the sites and the graph. Where no time is left, it measures less."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from desk import Desk, Found, decide, names, table

from fx_passes.choose.static_rules import static_choice
from fx_passes.plan import Plan


def test_the_budget_is_shared(found: Found) -> None:
    """Half of it is for the sites: what one of them leaves, the next one gets. The rest is for the graph."""

    def alone(key: str, name: str) -> float:
        desk.now += 1.0 if name == "expand" else 0.0
        return 10.0 if name == "expand" else 5.0

    desk = Desk(alone)
    decide(desk, found, budget=20.0)
    assert desk.seconds[:2] == [10.0 / 2, 10.0 - 1.0]
    assert all(seconds <= 18.0 for seconds in desk.seconds[2:])


def test_sites_without_time_take_the_static_choice(found: Found) -> None:
    """The first site takes all the time, and its times decide. For the second site, the rules decide."""

    def alone(key: str, name: str) -> float:
        desk.now += 100.0
        return {"expand": 10.0, "polyphase(phases=8)": 5.0}.get(name, 9.0)

    desk = Desk(alone)
    plan = decide(desk, found, budget=20.0)
    assert desk.timed == found.keys[:1]
    rules = static_choice(found.sites[-1], "finite")
    assert names(plan) == ["polyphase(phases=8)"] * 2 + [rules.name if rules else "expand"]


def test_no_time_no_variants(found: Found) -> None:
    """Making one graph takes all the time. So no other one is made, and all lowerings are judged at once."""
    written: list[frozenset[str]] = []
    desk = Desk(table({"polyphase(phases=8)": 5.0}))

    def write(without: frozenset[str]) -> frozenset[str]:
        desk.now += 5.0
        written.append(without)
        return without

    def trial_of(plan: Plan) -> Any:
        return SimpleNamespace(keys=tuple(found.keys), write=write)

    desk.trial_of = trial_of  # type: ignore[method-assign]
    plan = decide(desk, found, budget=20.0)
    assert written == [frozenset()]
    assert names(plan) == ["polyphase(phases=8)"] * 3
