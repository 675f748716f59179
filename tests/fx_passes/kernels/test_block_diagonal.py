"""Dense weights with one kernel on their diagonal blocks."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fx_passes.kernels.block_diagonal import find_diagonal_blocks
from fx_passes.kernels.expand import expand_block_diagonal
from fx_passes.kernels.repeats import Mismatch, Repeats


@pytest.mark.slow
@given(groups=st.integers(2, 5), rows=st.integers(1, 3), columns=st.integers(1, 3), size=st.integers(1, 4))
def test_blocks_are_found(groups: int, rows: int, columns: int, size: int) -> None:
    """Any number of blocks of any shape; a kernel without zeros cannot be split further."""
    kernel = torch.rand(rows, columns, size) + 1
    found = find_diagonal_blocks(expand_block_diagonal(kernel, groups))
    assert found is not None
    blocks, repeats = found
    assert blocks == groups
    assert isinstance(repeats, Repeats)
    assert torch.equal(repeats.kernel, kernel)


def test_ordinary_dense_weights_are_no_candidates() -> None:
    """Full, empty, all zero, or of one row: None, not a refusal."""
    assert find_diagonal_blocks(torch.randn(4, 4, 3)) is None
    assert find_diagonal_blocks(torch.zeros(4, 4, 3)) is None
    assert find_diagonal_blocks(torch.randn(1, 4, 3)) is None
    assert find_diagonal_blocks(torch.empty(4, 4, 0)) is None


@pytest.mark.parametrize("value", [1e-30, -0.0, torch.nan])
def test_anything_off_the_blocks_rules_it_out(value: float) -> None:
    """Even -0.0, whose product with a negative number is +0.0, and a NaN."""
    weight = expand_block_diagonal(torch.ones(1, 1, 3), 4)
    weight[2, 1, 0] = value
    assert find_diagonal_blocks(weight) is None


def test_blocks_that_differ_are_named() -> None:
    """Zero off the blocks but of different kernels: a candidate, refused with the place."""
    weight = expand_block_diagonal(torch.ones(1, 1, 3), 4)
    weight[2, 2, 1] = 2.0
    blocks, found = find_diagonal_blocks(weight) or (0, None)
    assert blocks == 4
    assert found == Mismatch("differs", "group 2 differs from group 0 by 1 at [0, 0, 1]")


def test_equal_larger_blocks_are_preferred_to_differing_smaller_ones() -> None:
    """diag(a, b, a, b) is not one 1x1 kernel four times, but one 2x2 kernel twice."""
    weight = torch.diag(torch.tensor([1.0, 2.0, 1.0, 2.0])).reshape(4, 4, 1)
    blocks, found = find_diagonal_blocks(weight) or (0, None)
    assert blocks == 2
    assert isinstance(found, Repeats)
    assert found.kernel.shape == (2, 2, 1)
