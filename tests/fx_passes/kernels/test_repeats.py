"""Repeats of a kernel in a weight, by bits and within a tolerance."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fx_passes.kernels.repeats import Allowed, Mismatch, Repeats, find_repeats, first_nan

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.complex64, torch.int8]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_repeat_is_found_and_one_changed_element_is_not(dtype: torch.dtype) -> None:
    """Every dtype is compared by its bits; the reason names group, size and place."""
    weight = torch.randint(-9, 9, (2, 2, 3)).to(dtype).repeat(4, 1, 1)
    found = find_repeats(weight, 4)
    assert isinstance(found, Repeats)
    assert torch.equal(found.kernel, weight[:2])
    assert found.max_difference == 0.0
    weight[5, 1, 2] += 1
    changed = find_repeats(weight, 4)
    assert isinstance(changed, Mismatch)
    assert changed.code == "differs"
    assert changed.reason.startswith("group 2 differs from group 0 by 1 at [1, 1, 2]")


def test_one_unit_in_the_last_place_is_refused_with_the_place() -> None:
    """The smallest change there is does not pass for a repeat."""
    weight = torch.randn(1, 1, 3, 3).repeat(4, 1, 1, 1)
    weight[3, 0, 1, 2] = torch.nextafter(weight[3, 0, 1, 2], torch.tensor(torch.inf))
    found = find_repeats(weight, 4)
    assert isinstance(found, Mismatch)
    assert found.reason.startswith("group 3 differs from group 0 by ")
    assert found.reason.endswith("at [0, 0, 1, 2]")


def test_signs_of_zero_differ() -> None:
    """-0.0 == 0.0, but 1 / -0.0 does not equal 1 / 0.0: bits decide."""
    found = find_repeats(torch.tensor([0.0, -0.0]).reshape(2, 1, 1), 2)
    assert found == Mismatch("differs", "group 1 differs from group 0 in the sign of zero at [0, 0, 0]")


def test_nan_is_refused_even_where_it_repeats() -> None:
    """A NaN is named with its place."""
    weight = torch.ones(3, 1, 2)
    weight[:, 0, 1] = torch.nan
    assert find_repeats(weight, 3) == Mismatch("nan", "the weight is NaN at [0, 0, 1] (3 in all)")
    assert first_nan(torch.ones(2)) is None
    assert first_nan(torch.ones(2, dtype=torch.int64)) is None


def test_empty_weight_is_refused() -> None:
    """Nothing repeats nothing."""
    found = find_repeats(torch.empty(0, 1, 3), 1)
    assert isinstance(found, Mismatch)
    assert found.code == "empty"


def test_tolerance_takes_the_mean_and_says_how_far_it_is() -> None:
    """Within the tolerance the kernel is the mean; the largest distance from it is reported."""
    weight = torch.tensor([1.0, 1.2, 1.1]).reshape(3, 1, 1)
    found = find_repeats(weight, 3, Allowed(0.11))
    assert isinstance(found, Repeats)
    assert found.kernel.item() == pytest.approx(1.1)
    assert found.max_difference == pytest.approx(0.1, rel=1e-5)
    refused = find_repeats(weight, 3, Allowed(0.05))
    assert isinstance(refused, Mismatch)
    assert "0.1 away from the mean of the groups at [0, 0, 0], more than the tolerance 0.05" in refused.reason


def test_infinite_difference_is_not_within_any_tolerance() -> None:
    """inf - inf is NaN, which compares with nothing: it must not slip through."""
    weight = torch.tensor([torch.inf, 1.0]).reshape(2, 1, 1)
    assert isinstance(find_repeats(weight, 2, Allowed(1e9)), Mismatch)


@given(
    groups=st.integers(2, 6),
    rows=st.integers(1, 3),
    rest=st.lists(st.integers(1, 4), min_size=2, max_size=4),
    data=st.data(),
)
def test_any_single_change_is_noticed(groups: int, rows: int, rest: list[int], data: st.DataObject) -> None:
    """Whatever the geometry and wherever the change, bits that differ are found."""
    weight = torch.randn(rows, *rest).repeat(groups, *[1] * len(rest))
    assert isinstance(find_repeats(weight, groups), Repeats)
    flat = weight.view(-1)
    where = data.draw(st.integers(0, flat.numel() - 1))
    flat[where] = torch.nextafter(flat[where], flat[where] + 1)
    assert isinstance(find_repeats(weight, groups), Mismatch)


def test_strided_weight_is_read_in_place() -> None:
    """An expanded tensor (stride 0) and a channels-last one are repeats, too."""
    assert isinstance(find_repeats(torch.randn(1, 1, 3).expand(5, -1, -1), 5), Repeats)
    weight = torch.randn(1, 2, 3, 3).repeat(4, 1, 1, 1).to(memory_format=torch.channels_last)
    assert isinstance(find_repeats(weight, 4), Repeats)
