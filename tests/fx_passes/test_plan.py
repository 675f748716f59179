"""A plan is written down, read again, and compared."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from plan_for_two import POLYPHASE, fitting

from fx_passes.errors import UsageError
from fx_passes.lowerings import MODULES
from fx_passes.plan import SCHEMA, Choice, Plan
from fx_passes.records import EXACTNESS, Proposal


def test_written_and_read() -> None:
    """The choices and the notes are the same after reading. So is the text, byte for byte."""
    plan = fitting()
    text = plan.to_json()
    again = Plan.from_json(text)
    assert again == plan
    assert again.to_json() == text
    assert text.endswith("}\n")
    assert json.loads(text)["schema"] == SCHEMA


# What a stage may note. JSON has some of it, and some not.
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
    """Whatever is in a plan, it is equal after reading, and so is its text."""
    text = plan.to_json()
    again = Plan.from_json(text)
    assert again == plan
    assert again.to_json() == text
    assert {name: c.proposal and c.proposal.name for name, c in again.choices.items()} == {
        name: c.proposal and c.proposal.name for name, c in plan.choices.items()
    }
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_plans_that_differ_are_not_equal() -> None:
    """Plans differ in what is done at a site, in the sites, or in the notes."""
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
    """A plan keeps the notes that it was made with, even if the caller changes them later."""
    timings = {"0a": {"expand": 1.0, "lost": float("inf")}}
    plan = Plan({}, {"timings_ms": timings})
    timings["0a"]["expand"] = 2.0
    assert plan.made["timings_ms"]["0a"]["expand"] == 1.0
    assert float(plan.made["timings_ms"]["0a"]["lost"]) == float("inf")


def test_the_least_exact_choice() -> None:
    """A plan is as exact as the least exact of its choices. Without one it is bitwise."""
    lift, grouped = Proposal("lift", (), "reordered"), Proposal("grouped", (), "finite")
    assert Plan({}).exactness == "bitwise"
    assert Plan({"a": Choice("", None)}).exactness == "bitwise"
    assert Plan({"a": Choice("", lift), "b": Choice("", None)}).exactness == "reordered"
    assert Plan({"a": Choice("", lift), "b": Choice("", grouped)}).exactness == "finite"


def text_with(**changes: Any) -> str:
    """Return the text of a plan, with other entries for the site ``blur``. None takes an entry away."""
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
    """Whatever is wrong with the file, there is one error, and it says what is wrong."""
    text, reason = NO_PLAN[name]
    with pytest.raises(UsageError, match=r"^the file is no plan: ") as error:
        Plan.from_json(text)
    assert reason in str(error.value)


def test_another_schema() -> None:
    """A plan of another version is refused, and the error names its schema."""
    text = fitting().to_json().replace(SCHEMA, "fx-passes/plan/9")
    with pytest.raises(UsageError) as error:
        Plan.from_json(text)
    assert str(error.value) == f"the plan has schema 'fx-passes/plan/9', expected {SCHEMA!r}"
