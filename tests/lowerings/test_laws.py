"""The laws of numbers that every lowering keeps; a new one is tested by its two files being there."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from cases import Case, make
from drawn import taken
from hypothesis import given
from known import TESTED, WAYS
from oracle import Checked, allowed_error, check, each, factored, of, spread

from fx_passes.lowerings import MODULES, build, propose

# How many cases a law has to see; hypothesis draws `max_examples`, and leaves out what it drew before.
DRAWN = 20


def test_every_lowering_has_examples() -> None:
    """A new lowering needs three cases on which it is proposed, or the laws below would say nothing."""
    assert set(TESTED) == set(WAYS)
    assert all(len(tested.examples) >= 3 for tested in TESTED.values())


@pytest.mark.parametrize("name", WAYS)
def test_examples_are_proposed(name: str) -> None:
    """Each example of a lowering is one: the laws have something to look at."""
    for case in TESTED[name].examples:
        assert of(name, case.resample(), case.kernel(torch.float32, integers=False), case.siblings)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("name", WAYS)
def test_agrees_to_rounding(name: str, dtype: torch.dtype) -> None:
    """Law 2: the algebra holds, whatever the geometry; what is left is within the bound of rounding."""
    assert all(checked.agrees for checked in each(name, dtype, integers=False))
    seen = 0

    @given(case=taken(name))
    def law(case: Case) -> None:
        nonlocal seen
        seen += 1
        for checked in check(name, case, dtype, integers=False):
            assert checked.agrees, checked.proposal

    law()
    assert seen >= DRAWN, "the lowering was hardly tested"


@pytest.mark.parametrize("name", WAYS)
def test_small_integers_are_exact(name: str) -> None:
    """Law 1: where every product and sum is exact, the bits are the same."""
    seen = 0

    def require(case: Case) -> None:
        nonlocal seen
        found = check(name, case, torch.float32, integers=True)
        # Other factors may not be numbers of few bits.
        found = [checked for checked in found if case.rank == 1 or not factored(checked.proposal)]
        seen += bool(found)
        for checked in found:
            assert checked.exact, checked.proposal

    for case in TESTED[name].examples:
        require(case)
    if name != "low_rank":  # rank 1 is not proposed; test_low_rank_of_exact_factors
        given(case=taken(name))(require)()
        assert seen >= DRAWN // 2, "the lowering was hardly tested"


def test_low_rank_of_exact_factors() -> None:
    """Law 1 for two products whose factors are powers of two, each in rows and columns of its own."""
    case = make((11, 11), (20, 40), padding=5, rank=2)
    kernel = torch.zeros(1, 1, 11, 11)
    kernel[0, 0, 5, 5], kernel[0, 0, 2, 8] = 4, 1
    x = case.input(torch.float32, integers=True)
    (proposal,) = (p for p in propose(case.resample(), kernel)[0] if p.lowering == "low_rank")
    found = build(proposal, case.resample(), kernel, None)(x)
    assert torch.equal(found, case.reference(x, kernel, None))


@pytest.mark.parametrize("name", WAYS)
def test_a_perturbed_tap_is_found(name: str) -> None:
    """Law 3, the negative control of both laws above: one tap off by 2 percent, and no check agrees."""
    for case in TESTED[name].examples:
        for dtype in (torch.float64, torch.float32):
            off = 0.02 * float(case.kernel(dtype, integers=False).abs().max())
            found = check(name, case, dtype, integers=False, perturb=off)
            assert found
            assert not any(checked.agrees for checked in found)
        assert not any(c.exact for c in check(name, case, torch.float32, integers=True, perturb=1.0))


@pytest.mark.parametrize("name", WAYS)
def test_agrees_when_exported(name: str) -> None:
    """Law 2 for what an exporter sees, which may be written in other operators than what eager torch runs."""
    for case in TESTED[name].examples:
        for checked in check(name, case, torch.float32, integers=False)[:2]:
            kernel, bias = case.kernel(torch.float32, False), case.bias_of(torch.float32)
            module, x = (
                build(checked.proposal, case.resample(), kernel, bias, case.siblings),
                case.input(torch.float32, False),
            )
            found = torch.export.export(module, (x,)).module()(x)
            assert replace(checked, found=found).agrees, checked.proposal


@pytest.mark.parametrize("number", [torch.inf, -torch.inf, torch.nan])
@pytest.mark.parametrize("name", WAYS)
def test_what_is_reordered_spreads_no_infinity(name: str, number: float) -> None:
    """Unless it says ``finite``, a lowering gives the outputs an Inf or NaN that had one, and no other."""

    @given(case=taken(name))
    def law(case: Case) -> None:
        for proposal, found, expected in spread(name, case, number):
            if proposal.exactness != "finite":
                assert torch.equal(found, expected), proposal

    law()


@pytest.mark.parametrize("name", WAYS)
def test_what_is_finite_spreads_infinities_otherwise(name: str) -> None:
    """A lowering that says ``finite`` has an example on which it could say nothing better."""
    results = [result for case in TESTED[name].examples for result in spread(name, case, torch.inf)]
    finite = [result for result in results if result[0].exactness == "finite"]
    for _, found, expected in results:
        assert found.shape == expected.shape
    if finite:
        assert any(not torch.equal(found, expected) for _, found, expected in finite)


@pytest.mark.parametrize("name", [name for name in MODULES if not TESTED[name].open_size])
def test_open_batches(name: str) -> None:
    """Law 2 for any number of items, none as well; those not listed above are proposed whatever it is."""
    for case in TESTED[name].examples:
        shapes = [(None, *shape[1:]) for shape in (case.resample().in_shape, case.resample().out_shape)]
        resample = replace(case.resample(), in_shape=shapes[0], out_shape=shapes[1])
        kernel, bias = case.kernel(torch.float64, False), case.bias_of(torch.float64)
        proposals = of(name, resample, kernel)
        assert proposals
        for proposal, batch in itertools.product(proposals, (0, 1, 3)):
            sized = replace(case, batch=batch)
            x = sized.input(torch.float64, False)
            expected = sized.reference(x, kernel, bias)
            allowed = allowed_error(factored(proposal), sized, x, kernel, bias)
            found = build(proposal, resample, kernel, bias)(x)
            assert Checked(sized, proposal, found, expected, allowed, expected).agrees, (proposal, batch)
