"""A plan is written down, read again, and followed only where it fits."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fx_passes.choose.plan_fits import require_fitting
from fx_passes.errors import UsageError
from fx_passes.lowerings import MODULES, propose
from fx_passes.plan import SCHEMA, Choice, Plan
from fx_passes.records import EXACTNESS, Proposal
from fx_passes.resample.axes import Axis, Resample

POLYPHASE = Proposal("polyphase", (("phases", 16),), "finite")


@dataclass(frozen=True)
class Place:
    """A site, as far as a plan looks at it."""

    id: str
    key: str
    resample: Resample
    kernel: Tensor


AXES = (Axis(5, shift=2, extent=-1), Axis(5, shift=2, extent=-1))
SHAPE = (2, 3, 20, 40)
RESAMPLE = Resample(AXES, 3, 1, 1, "zeros", False, SHAPE, SHAPE)
KERNEL = torch.arange(25.0).square().reshape(1, 1, 5, 5)


def places() -> list[Any]:
    """Two sites that are the same; ``Any``, for a ``Site`` holds more than a plan looks at."""
    return [Place("blur", "0a", RESAMPLE, KERNEL), Place("a/b#2", "0b", RESAMPLE, KERNEL)]


def fitting() -> Plan:
    """A plan for both places: one in phases, one as it is."""
    return Plan({"blur": Choice("0a", POLYPHASE), "a/b#2": Choice("0b", None)}, {"by": "hand", "threads": 2})


def test_written_and_read() -> None:
    """Choices and what was noted survive; the text is that of the same plan, byte for byte."""
    plan = fitting()
    text = plan.to_json()
    again = Plan.from_json(text)
    assert again == plan
    assert again.to_json() == text
    assert text.endswith("}\n")
    assert json.loads(text)["schema"] == SCHEMA


def test_every_proposal_is_written_and_read() -> None:
    """Whatever a lowering proposes fits the site again after it was a file."""
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


# Whatever a stage may note: what JSON has, and what it has not.
NUMBERS = st.one_of(
    st.integers(), st.floats(), st.floats(width=32).map(np.float32), st.integers(0, 9).map(np.int64)
)
KEYS = st.one_of(st.text(), st.integers(), st.booleans(), st.none())
NOTES = st.recursive(
    st.one_of(NUMBERS, st.text(), st.none(), st.booleans(), st.just(Path("x")), st.just(torch.float16)),
    lambda inner: st.one_of(st.lists(inner), st.tuples(inner, inner), st.dictionaries(KEYS, inner)),
    max_leaves=8,
)
FINITE = st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(), st.booleans())
PARAMS = st.dictionaries(st.text(), st.one_of(FINITE, st.lists(FINITE), st.tuples(FINITE, st.lists(FINITE))))
PROPOSALS = st.builds(
    Proposal,
    st.sampled_from(sorted(MODULES)),
    PARAMS.map(lambda params: tuple(params.items())),
    st.sampled_from(EXACTNESS),
)
CHOICES = st.builds(Choice, st.text(), st.none() | PROPOSALS)


@pytest.mark.slow
@given(st.builds(Plan, st.dictionaries(st.text(), CHOICES), st.dictionaries(KEYS, NOTES)))
def test_every_plan_survives_json(plan: Plan) -> None:
    """Equal, and the same text, whatever is in it: no number, order or container of one side only."""
    text = plan.to_json()
    again = Plan.from_json(text)
    assert again == plan
    assert again.to_json() == text
    assert {name: c.proposal and c.proposal.name for name, c in again.choices.items()} == {
        name: c.proposal and c.proposal.name for name, c in plan.choices.items()
    }
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_plans_that_differ_are_not_equal() -> None:
    """In what is done at a site, at which, or in what was noted."""
    plan = fitting()
    other = Proposal("polyphase", (("phases", 8),), "finite")
    for changed in (
        replace(plan, choices={**plan.choices, "blur": Choice("0a", other)}),
        replace(plan, choices={**plan.choices, "blur": Choice("0b", POLYPHASE)}),
        replace(
            plan, choices={**plan.choices, "blur": Choice("0a", replace(POLYPHASE, exactness="bitwise"))}
        ),
        replace(plan, choices={"blur": plan.choices["blur"]}),
        replace(plan, made={"by": "hand", "threads": 3}),
    ):
        assert changed != plan
        assert Plan.from_json(changed.to_json()) == changed


def test_a_number_that_json_has_not_is_no_parameter() -> None:
    """Nothing is written that would be read as something else."""
    for value in (float("nan"), float("inf"), torch.float32):
        plan = Plan({"blur": Choice("0a", Proposal("polyphase", (("phases", value),), "finite"))})
        with pytest.raises((ValueError, TypeError)):
            plan.to_json()


def test_what_was_noted_does_not_change_afterwards() -> None:
    """A plan is what it was when it was made, whatever becomes of the timings."""
    timings = {"0a": {"expand": 1.0, "lost": float("inf")}}
    plan = Plan({}, {"timings_ms": timings})
    timings["0a"]["expand"] = 2.0
    assert plan.made["timings_ms"]["0a"]["expand"] == 1.0
    assert float(plan.made["timings_ms"]["0a"]["lost"]) == float("inf")


def sites_of_all_kinds() -> list[tuple[Resample, Tensor]]:
    line = torch.outer(torch.ones(5), torch.ones(5)).reshape(1, 1, 5, 5)
    up = tuple(replace(axis, up=4, extent=1) for axis in AXES)
    return [
        (RESAMPLE, KERNEL),
        (RESAMPLE, line),
        (replace(RESAMPLE, block_diagonal=True), line),
        (replace(RESAMPLE, axes=up), line),
    ]


def test_the_least_exact_choice() -> None:
    """A plan is as exact as the least exact of its choices; bitwise where there is none."""
    lift, grouped = Proposal("lift", (), "reordered"), Proposal("grouped", (), "finite")
    assert Plan({}).exactness == "bitwise"
    assert Plan({"a": Choice("", None)}).exactness == "bitwise"
    assert Plan({"a": Choice("", lift), "b": Choice("", None)}).exactness == "reordered"
    assert Plan({"a": Choice("", lift), "b": Choice("", grouped)}).exactness == "finite"


def text_with(**changes: Any) -> str:
    """The text of a fitting plan, with other entries for the site ``blur``; None takes one away."""
    data = json.loads(fitting().to_json())
    site = data["sites"]["blur"]
    site.update(changes)
    data["sites"]["blur"] = {key: value for key, value in site.items() if value is not None}
    return json.dumps(data)


NO_PLAN = {
    "empty": ("", "JSONDecodeError"),
    "no JSON": ("{'schema': 1}", "JSONDecodeError"),
    "a list": ("[]", "TypeError"),
    "a number": ("7", "TypeError"),
    "no schema": ('{"sites": {}}', "KeyError: 'schema'"),
    "no sites": (json.dumps({"schema": SCHEMA}), "KeyError: 'sites'"),
    "sites in a list": (json.dumps({"schema": SCHEMA, "sites": []}), "AttributeError"),
    "a site that is no object": (json.dumps({"schema": SCHEMA, "sites": {"a": 1}}), "TypeError"),
    "notes that are no object": (json.dumps({"schema": SCHEMA, "sites": {}, "made": 3}), "TypeError"),
    "no key": (text_with(key=None), "KeyError: 'key'"),
    "no lowering": (text_with(lowering=None), "KeyError: 'lowering'"),
    "no parameters": (text_with(params=None), "KeyError: 'params'"),
    "no exactness": (text_with(exactness=None), "KeyError: 'exactness'"),
    "parameters in a list": (text_with(params=[1]), "AttributeError"),
    "an exactness that is none": (text_with(exactness="nearly"), "ValueError: exactness 'nearly'"),
    "nested without end": ("[" * 100_000, "RecursionError"),
}


@pytest.mark.parametrize("name", NO_PLAN)
def test_what_is_no_plan(name: str) -> None:
    """One error, whatever is wrong, that says so."""
    text, reason = NO_PLAN[name]
    with pytest.raises(UsageError, match=r"^the file is no plan: ") as error:
        Plan.from_json(text)
    assert reason in str(error.value)


def test_another_schema() -> None:
    """A plan of another version is named as that."""
    text = fitting().to_json().replace(SCHEMA, "fx-passes/plan/9")
    with pytest.raises(UsageError) as error:
        Plan.from_json(text)
    assert str(error.value) == f"the plan has schema 'fx-passes/plan/9', expected {SCHEMA!r}"


def test_a_plan_that_fits() -> None:
    """Nothing is raised, in whatever order the sites are."""
    require_fitting(fitting(), places())
    require_fitting(fitting(), places()[::-1])
    require_fitting(Plan({}), [])


def proposing(**changes: Any) -> Plan:
    """The fitting plan with something else at ``blur``."""
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
        "the plan asks for lift at `blur`, where the convolution has more than one dimension",
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
    """Nothing is done by a plan that was made for another model; the error says where it differs."""
    plan, message = MISFITS[name]
    with pytest.raises(UsageError) as error:
        require_fitting(plan, places())
    assert str(error.value) == message


def test_a_number_of_another_type() -> None:
    """JSON tells 16.0 from 16, and so does what is built."""
    plan = Plan.from_json(fitting().to_json().replace('"phases": 16', '"phases": 16.0'))
    with pytest.raises(UsageError):
        require_fitting(plan, places())
