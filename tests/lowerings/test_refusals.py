"""Every refusal of every lowering, with its code and its words."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from cases import Case, make
from drawn import cases
from hypothesis import given
from known import TESTED, VOLUMES, WAYS

from fx_passes.lowerings import MODULES, propose
from fx_passes.lowerings.forms.refusals import refuse


@pytest.mark.parametrize(
    ("name", "case", "code", "reason"),
    [(name, *refused) for name, tested in TESTED.items() for refused in tested.refusals],
)
def test_refusals(name: str, case: Case, code: str, reason: str) -> None:
    """Law 6: each refusal, by its code and in its words."""
    kernel = case.kernel(torch.float64, integers=False)
    refusals = propose(case.resample(), kernel)[1]
    if name == VOLUMES:
        assert refuse(code, reason) in refusals.values()
    else:
        assert MODULES[name].propose(case.resample(), kernel) == refusals[name] == refuse(code, reason)


@pytest.mark.parametrize("name", [name for name, tested in TESTED.items() if tested.open_size])
def test_refusals_of_open_sizes(name: str) -> None:
    """Law 6, where the sizes are open."""
    case = TESTED[name].examples[0]
    shape = (None, *case.resample().in_shape[1:])
    resample = replace(case.resample(), in_shape=shape, out_shape=shape)
    found = MODULES[name].propose(resample, case.kernel(torch.float32, False))
    assert (found.code, found.reason) == TESTED[name].open_size


@pytest.mark.parametrize("steered", ["", *WAYS])
def test_there_are_no_other_refusals(steered: str) -> None:
    """Law 6: a reason that no test knows does not come up, numbers aside; and something always does."""

    @given(case=cases(steered))
    def law(case: Case) -> None:
        proposals, refusals = propose(case.resample(), case.kernel(torch.float64, integers=False))
        for name, refusal in refusals.items():
            listed = TESTED[name].refusals + TESTED[VOLUMES].refusals
            known = [text for _, code, text in listed if code == refusal.code]
            assert any(_pattern(text).fullmatch(refusal.reason) for text in known), (name, refusal)
        assert set(MODULES) == set(refusals) | {proposal.lowering for proposal in proposals}

    law()


def _pattern(reason: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"(?<!`)\\?\d+", r"\\d+", re.escape(reason)))


def test_refusal_by_exactness() -> None:
    """Law 6: what is less exact than allowed is refused with both words; the exact enough is proposed."""
    case = make((5, 5), (12, 40), rank=1)
    kernel = case.kernel(torch.float32, False)
    proposals, refusals = propose(case.resample(), kernel, "reordered")
    assert {p.lowering for p in proposals} == {"fold_batch", "separable"}
    assert refusals["polyphase"].reason == "it is finite, and only reordered is allowed"
    proposals, refusals = propose(case.resample(), kernel, "bitwise")
    assert proposals == []
    assert refusals["separable"].reason == "it is reordered, and only bitwise is allowed"


def test_a_kernel_that_underflowed_is_exact_for_finite_numbers_alone() -> None:
    """0 * Inf is NaN; with factors that are not 0 it is Inf."""
    taps = torch.exp(-((torch.arange(31) - 15) ** 2) / (2 * 1.2**2)).double()
    kernel = torch.outer(taps, taps).float()
    assert bool((kernel == 0).any())
    for name, values in (("finite", kernel), ("reordered", kernel[8:23, 8:23])):
        case = make(tuple(values.shape), (12, 40), rank=1)
        proposals, _ = propose(case.resample(), values[None, None])
        assert {p.exactness for p in proposals if p.lowering == "separable"} == {name}
