"""The static rules choose the least work, by geometry alone, and make a plan of their choices."""

from __future__ import annotations

from dataclasses import replace

import pytest
from places import GAINS, PLACES

from fx_passes.choose.static_rules import MARGIN, static_choice, static_gain, static_plan
from fx_passes.lowerings import propose
from fx_passes.plan import Choice, Plan
from fx_passes.records import EXACTNESS, Exactness


@pytest.mark.parametrize("exactness", EXACTNESS)
@pytest.mark.parametrize("name", PLACES)
def test_the_choice_is_the_least_work_that_is_allowed(name: str, exactness: Exactness) -> None:
    """The choice is proposed, and exact enough. No other gains more, and the gain is large enough."""
    place = PLACES[name]
    proposals, _ = propose(place.resample, place.kernel)
    allowed = [p for p in proposals if EXACTNESS.index(p.exactness) <= EXACTNESS.index(exactness)]
    most = max([static_gain(place, p) for p in allowed], default=0.0)
    chosen = static_choice(place, exactness)
    if most >= MARGIN:
        assert chosen in allowed
        assert chosen is not None
        assert static_gain(place, chosen) == most
    else:
        assert chosen is None


def test_exactness_limits_the_choice() -> None:
    """RGB images and products of three lines are lowered, other volumes are not. If the bits must be equal,
    nothing is lowered."""
    chosen = {name: static_choice(place, "finite") for name, place in PLACES.items()}
    assert {"rank 1", "open", "volume"} <= {name for name, choice in chosen.items() if choice}
    assert chosen["3-D"] is None
    places = [*PLACES.values(), *(place for place, _ in GAINS.values())]
    assert all(static_choice(place, "bitwise") is None for place in places)
    reordered = [choice for place in places if (choice := static_choice(place, "reordered"))]
    assert {choice.exactness for choice in reordered} == {"reordered"}


def test_numbers_do_not_matter() -> None:
    """Kernels of one rank get one choice, whatever numbers they hold. No clock and no machine matters."""
    for place in PLACES.values():
        assert static_choice(replace(place, kernel=place.kernel * -3), "finite") == static_choice(
            place, "finite"
        )


def test_the_plan_is_the_same_again() -> None:
    """Each site has one choice and its key, in the order of the sites. The text is the same twice."""
    sites = [replace(place, id=name, key=f"key of {name}") for name, place in PLACES.items()]
    plan = static_plan(sites)
    assert plan.to_json() == static_plan(sites).to_json()
    assert list(plan.choices) == list(PLACES)
    for site in sites:
        assert plan.choices[site.id].key == site.key
        assert plan.choices[site.id].proposal == static_choice(site, "finite")
    assert plan.made == {"by": "static rules"}
    assert static_plan(sites, "reordered").exactness == "reordered"


def test_a_proposal_survives_its_own_json() -> None:
    """A choice that was written and read is equal to what it was."""
    for name, place in PLACES.items():
        for proposal in propose(place.resample, place.kernel)[0]:
            plan = Plan({name: Choice("0a", proposal)})
            assert Plan.from_json(plan.to_json()).choices[name].proposal == proposal
