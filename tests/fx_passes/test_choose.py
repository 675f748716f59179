"""Proposals -> plan, by rules that look at geometry alone."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import Tensor

from fx_passes import choose
from fx_passes.choose import static_choice, static_plan
from fx_passes.lowerings import propose
from fx_passes.records import EXACTNESS, Exactness
from fx_passes.resample import Axis, Resample

AXIS = Axis(5, shift=2, extent=-1)
IMAGE = Resample((AXIS, AXIS), 3, 1, 1, "zeros", False, (1, 3, 64, 64), (1, 3, 64, 64))
SOUND = Resample((AXIS,), 32, 1, 1, "zeros", False, (1, 32, 400), (1, 32, 400))
RANK_1 = torch.ones(1, 1, 5, 5)


def random(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@dataclass(frozen=True)
class Place:
    """A site, as far as a choice looks at it."""

    resample: Resample
    kernel: Tensor = field(default_factory=lambda: random(1, 1, 5, 5))
    id: str = "blur"
    key: str = "0a"


PLACES = {
    "rank 1": Place(IMAGE, RANK_1),
    "any rank": Place(IMAGE),
    "16 groups": Place(replace(IMAGE, groups=16), RANK_1),
    "block-diagonal": Place(replace(IMAGE, block_diagonal=True)),
    "blocks": Place(replace(IMAGE, rows=2, columns=2), random(2, 2, 5, 5)),
    "transposed": Place(replace(IMAGE, axes=(replace(AXIS, up=2), replace(AXIS, up=2)))),
    "sound": Place(SOUND, random(1, 1, 5)),
    "open": Place(replace(IMAGE, in_shape=(None, 3, 64, 64), out_shape=(None, 3, 64, 64)), RANK_1),
    "3-D": Place(replace(IMAGE, axes=(AXIS, AXIS, AXIS), in_shape=(1, 3, 16, 16, 16)), random(1, 1, 5, 5, 5)),
}


@pytest.mark.parametrize("exactness", EXACTNESS)
@pytest.mark.parametrize("name", PLACES)
def test_the_choice_is_the_best_that_is_allowed(name: str, exactness: Exactness) -> None:
    """It is proposed, exact enough, wanted by the rules, and none is wanted more."""
    place = PLACES[name]
    proposals, _ = propose(place.resample, place.kernel)
    allowed = [p for p in proposals if EXACTNESS.index(p.exactness) <= EXACTNESS.index(exactness)]
    wanted = max([p.static for p in allowed], default=0.0)
    chosen = static_choice(place, exactness)
    if wanted > 0:
        assert chosen in allowed
        assert chosen is not None
        assert chosen.static == wanted
    else:
        assert chosen is None


def test_the_rules_choose_something() -> None:
    """Most kinds of sites are lowered, 3-D ones are not; bitwise, nothing is."""
    chosen = {name: static_choice(place, "finite") for name, place in PLACES.items()}
    assert {name for name, choice in chosen.items() if choice is None} <= {"3-D", "16 groups"}
    assert chosen["3-D"] is None
    assert all(static_choice(place, "bitwise") is None for place in PLACES.values())
    reordered = [static_choice(place, "reordered") for place in PLACES.values()]
    assert any(reordered)
    assert {choice.exactness for choice in reordered if choice} == {"reordered"}


def test_small_sites_stay() -> None:
    """Below the limit a site is left as it is, whatever would be proposed; at the limit it is not."""
    for outputs, stays in ((choose._SMALL - 1, True), (choose._SMALL, False)):
        shape = (1, 1, outputs)
        place = Place(replace(SOUND, groups=1, in_shape=shape, out_shape=shape), random(1, 1, 5))
        assert propose(place.resample, place.kernel)[0]
        assert (static_choice(place, "finite") is None) == stays


def test_an_open_site_is_not_small() -> None:
    """Nobody knows how many outputs it has: the rules decide."""
    resample = replace(IMAGE, in_shape=(None, 3, 4, 4), out_shape=(None, 3, 4, 4))
    assert static_choice(Place(resample, RANK_1), "finite") is not None


def test_the_plan_is_the_same_again() -> None:
    """One choice for each site, in their order, with their keys; the same text twice."""
    sites = [replace(place, id=name, key=f"key of {name}") for name, place in PLACES.items()]
    plan = static_plan(sites)
    assert plan.to_json() == static_plan(sites).to_json()
    assert list(plan.choices) == list(PLACES)
    for site in sites:
        assert plan.choices[site.id].key == site.key
        assert plan.choices[site.id].proposal == static_choice(site, "finite")
    assert plan.made == {"by": "static rules"}
    assert static_plan(sites, "reordered").exactness == "reordered"


def test_numbers_do_not_matter() -> None:
    """Kernels of one rank get one choice, whatever they hold: no clock, no machine, no values."""
    for place in PLACES.values():
        assert static_choice(replace(place, kernel=place.kernel * -3), "finite") == static_choice(
            place, "finite"
        )
