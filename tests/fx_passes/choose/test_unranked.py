"""Lowerings whose work the static rules do not know: tuning may take them, the rules do not."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
from places import IMAGE, PLACES, RANK_1, Place

from fx_passes.choose.static_rules import preferred, static_choice, static_gain
from fx_passes.lowerings import MODULES, propose
from fx_passes.records import Proposal


def unknown_lowering(monkeypatch: pytest.MonkeyPatch, name: str = "zeroth") -> Proposal:
    """A lowering that somebody added as a file."""
    proposal = Proposal(name, (), "reordered")
    module = ModuleType(name)
    module.propose = lambda resample, kernel: [proposal]  # type: ignore[attr-defined]
    monkeypatch.setitem(MODULES, name, module)
    return proposal


def test_a_lowering_that_is_not_ranked_is_never_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """It needs no number. It is proposed, so that tuning can time it, and the rules choose as without it."""
    before = {name: static_choice(place, "finite") for name, place in PLACES.items()}
    proposal = unknown_lowering(monkeypatch)
    for name, place in PLACES.items():
        # This volume is no product, so no lowering gets to see it.
        ways = [way for way in propose(place.resample, place.kernel)[0] if way.lowering == "zeroth"]
        assert bool(ways) == (name != "3-D")
        assert all(static_gain(place, way) == 0.0 for way in [proposal, *ways])
        assert static_choice(place, "finite") == before[name]
    siblings: Any = Place(IMAGE, RANK_1, siblings=3)
    assert static_gain(siblings, Proposal("zeroth", (), "finite", merged=True)) == 0.0


def test_a_lowering_without_work_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is proposed, so that tuning can time it. The rules take another one."""
    place = PLACES["rank 1"]
    first = static_choice(place, "finite")
    assert first is not None
    monkeypatch.delattr(MODULES[first.lowering], "work")
    assert first in propose(place.resample, place.kernel)[0]
    second = static_choice(place, "finite")
    assert second is None or second.lowering != first.lowering


def test_preferred_is_the_least_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """The order does not matter. What is not ranked comes last; among such, the first one is preferred."""
    unknown = unknown_lowering(monkeypatch)
    for place in PLACES.values():
        proposals = [p for p in propose(place.resample, place.kernel)[0] if p != unknown]
        if not proposals:
            continue
        most = max(static_gain(place, p) for p in proposals)
        for order in ([unknown, *proposals], [*reversed(proposals), unknown]):
            assert static_gain(place, preferred(place, order)) == most
    other = Proposal("other", (), "finite")
    assert preferred(PLACES["sound"], [other, unknown]) == other
