"""What is fastest at a site by itself is chosen, if it may be and if it gains enough."""

from __future__ import annotations

import pytest
from desk import Desk, Found, decide, names, table

from fx_passes.choose.static_rules import preferred
from fx_passes.records import EXACTNESS, Exactness, Proposal
from fx_passes.tune.by_times import CLOSE, GAIN


def test_the_fastest_wins(found: Found) -> None:
    """The fastest candidate is chosen, whatever the static rules prefer."""
    plan = decide(Desk(table({"polyphase(phases=8)": 5.0})), found)
    assert names(plan) == ["polyphase(phases=8)"] * 3


def test_among_those_as_fast_the_rules_choose(found: Found) -> None:
    """Several candidates may be within CLOSE of the fastest. The static rules choose one, so noise does not
    change the file."""
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
    """Below a gain of GAIN nothing is lowered, and the graph is not even timed."""
    desk = Desk(table({"polyphase(phases=8)": 10.0 / GAIN + 0.01}, other=11.0))
    assert names(decide(desk, found)) == ["expand"] * 3
    assert desk.tried == []
    desk = Desk(table({"polyphase(phases=8)": 10.0 / GAIN - 0.01}, other=11.0))
    assert names(decide(desk, found)) == ["polyphase(phases=8)"] * 3


@pytest.mark.parametrize("exactness", EXACTNESS)
def test_exactness_limits_the_candidates(exactness: Exactness, found: Found) -> None:
    """No candidate that is less exact is exported or timed. If none is left, no graph is timed."""
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
