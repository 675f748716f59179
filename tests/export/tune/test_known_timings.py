"""What has been timed is not timed again."""

from __future__ import annotations

from desk import Desk, Found, decide, names, table

from export.tune.options import Timings


def test_sites_that_are_the_same_are_timed_once(found: Found) -> None:
    """Two sites have the same geometry, kernel and shape. They get one timing and one choice."""
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
    """Times that are known decide as if they were new."""
    first, second = found.keys
    desk = Desk(table({"polyphase(phases=8)": 5.0}))
    known = {first: dict.fromkeys(found.candidates[0].names, 10.0) | {"polyphase(phases=32)": 1.0}}
    plan = decide(desk, found, timings=Timings(known=known))
    assert desk.timed == [second]
    assert names(plan) == ["polyphase(phases=32)", "polyphase(phases=32)", "polyphase(phases=8)"]


def test_known_timings_that_lack_a_candidate(found: Found) -> None:
    """The times are from a run that allowed fewer candidates. Such a site is timed again."""
    first, second = found.keys
    known = {key: {"expand": 10.0} for key in (first, second)}
    known[second]["separable"] = 9.0
    desk = Desk(table({"polyphase(phases=8)": 5.0}))
    plan = decide(desk, found, timings=Timings(known=known))
    assert names(plan) == ["polyphase(phases=8)"] * 3
