"""A plan is followed only where it fits the sites of a model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from plan_for_two import POLYPHASE, fitting
from torch import Tensor

from fx_passes.choose.plan_fits import require_fitting
from fx_passes.errors import UsageError
from fx_passes.lowerings import MODULES, propose
from fx_passes.plan import Choice, Plan
from fx_passes.resample.axes import Axis, Resample


@dataclass(frozen=True)
class Place:
    """A site, as far as a plan looks at it."""

    id: str
    key: str
    resample: Resample
    kernel: Tensor
    parts: tuple[Any, ...] = ()


AXES = (Axis(5, shift=2, extent=-1), Axis(5, shift=2, extent=-1))
SHAPE = (2, 3, 20, 40)
RESAMPLE = Resample(AXES, 3, 1, 1, "zeros", False, SHAPE, SHAPE)
KERNEL = torch.arange(25.0).square().reshape(1, 1, 5, 5)


def places() -> list[Any]:
    """Return two equal sites. The type is ``Any``, because a ``Site`` holds more than a plan looks at."""
    return [Place("blur", "0a", RESAMPLE, KERNEL), Place("a/b#2", "0b", RESAMPLE, KERNEL)]


def sites_of_all_kinds() -> list[tuple[Resample, Tensor]]:
    """Return a resample and a kernel for each kind of site."""
    line = torch.outer(torch.ones(5), torch.ones(5)).reshape(1, 1, 5, 5)
    up = tuple(replace(axis, up=4, extent=1) for axis in AXES)
    return [
        (RESAMPLE, KERNEL),
        (RESAMPLE, line),
        (replace(RESAMPLE, block_diagonal=True), line),
        (replace(RESAMPLE, axes=up), line),
    ]


def test_every_proposal_is_written_and_read() -> None:
    """Each proposal of a lowering still fits its site after it was written to a file and read."""
    seen = set()
    for resample, kernel in sites_of_all_kinds():
        for proposal in propose(resample, kernel)[0]:
            seen.add(proposal.lowering)
            plan = Plan({"blur": Choice("0a", proposal)})
            again = Plan.from_json(plan.to_json())
            site: Any = Place("blur", "0a", resample, kernel)
            require_fitting(again, [site])
            found = again.choices["blur"].proposal
            assert found is not None
            assert found == proposal
            assert again == plan
    assert len(seen) >= 5


def test_a_plan_that_fits() -> None:
    """A fitting plan raises nothing, whatever the order of the sites."""
    require_fitting(fitting(), places())
    require_fitting(fitting(), places()[::-1])
    require_fitting(Plan({}), [])


def proposing(**changes: Any) -> Plan:
    """Return the fitting plan with another proposal at ``blur``."""
    plan = fitting()
    return replace(plan, choices={**plan.choices, "blur": Choice("0a", replace(POLYPHASE, **changes))})


MISFITS: dict[str, tuple[Plan, str]] = {
    "a site too many": (
        Plan({**fitting().choices, "new": Choice("0c", None)}),
        "the plan does not fit this model: 1 sites differ, first `new`",
    ),
    "no site": (Plan({}), "the plan does not fit this model: 2 sites differ, first `a/b#2`"),
    "another kernel": (
        Plan({**fitting().choices, "blur": Choice("ff", POLYPHASE)}),
        "the plan does not fit this model: kernel or shapes of `blur` are not those it was made for",
    ),
    "another kernel where nothing is done": (
        Plan({**fitting().choices, "a/b#2": Choice("ff", None)}),
        "the plan does not fit this model: kernel or shapes of `a/b#2` are not those it was made for",
    ),
    "an unknown lowering": (
        proposing(lowering="winograd", params=()),
        f"the plan asks for lowering 'winograd' at `blur`; known: {', '.join(MODULES)}",
    ),
    "a lowering that refuses": (
        proposing(lowering="lift", params=()),
        "the plan asks for lift at `blur`, where the convolution has two dimensions",
    ),
    "parameters that are not proposed": (
        proposing(params=(("phases", 7),)),
        "the plan asks for polyphase(phases=7) (finite) at `blur`, not proposed",
    ),
    "no parameters": (proposing(params=()), "the plan asks for polyphase (finite) at `blur`, not proposed"),
    "more parameters": (
        proposing(params=(("interleave", "split"), ("phases", 16))),
        "the plan asks for polyphase(interleave=split, phases=16) (finite) at `blur`, not proposed",
    ),
    "a better exactness than there is": (
        proposing(exactness="bitwise"),
        "the plan asks for polyphase(phases=16) (bitwise) at `blur`, not proposed",
    ),
}


@pytest.mark.parametrize("name", MISFITS)
def test_a_plan_for_something_else(name: str) -> None:
    """A plan for another model is refused. The error says where it differs."""
    plan, message = MISFITS[name]
    with pytest.raises(UsageError) as error:
        require_fitting(plan, places())
    assert str(error.value) == message


def test_a_number_of_another_type() -> None:
    """JSON tells 16.0 from 16, and a plan does so too."""
    plan = Plan.from_json(fitting().to_json().replace('"phases": 16', '"phases": 16.0'))
    with pytest.raises(UsageError):
        require_fitting(plan, places())
