"""A kernel that repeats up to a factor for each group: products that were rounded, and nothing else."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from fx_passes.find.find_kernels import find_shared_kernels, judge_graph
from fx_passes.kernels.repeats import find_scaled_repeats

# In float64 the factors themselves are rounded, and some such weights are not found.
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


def products(seed: int, dtype: torch.dtype, groups: int = 5, rows: int = 1) -> Tensor:
    """(groups * rows, 2, 3, 3): a kernel in ``dtype`` times factors of both signs, rounded to ``dtype``."""
    random = torch.Generator().manual_seed(seed)
    kernel = torch.randn(rows, 2, 3, 3, generator=random, dtype=torch.float64).to(dtype).double()
    factors = torch.randn(groups, generator=random, dtype=torch.float64).to(dtype).double()
    return torch.cat([factor * kernel for factor in factors]).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@given(seed=st.integers(0, 10**6), rows=st.integers(1, 2))
def test_rounded_products_are_found(dtype: torch.dtype, seed: int, rows: int) -> None:
    """Whatever the numbers are, as long as none of them is so small that it has fewer bits."""
    weight = products(seed, dtype, rows=rows)
    if bool((weight.abs() < 2.0**8 * torch.finfo(dtype).tiny).any()):
        return
    found = find_scaled_repeats(weight, 5)
    assert found is not None
    assert found.kernel.shape == (rows, 2, 3, 3)
    again = torch.cat([factor * found.kernel.double() for factor in found.factors])
    assert bool(((again - weight.double()).abs() <= 3 * torch.finfo(dtype).eps * weight.double().abs()).all())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@given(seed=st.integers(0, 10**6), place=st.integers(0, 89))
def test_a_tap_that_is_off_is_found(dtype: torch.dtype, seed: int, place: int) -> None:
    """By eight units in the last place, in any group: then it is no product of the kernel."""
    weight = products(seed, dtype)
    weight.view(-1)[place] *= 1 + 8 * torch.finfo(dtype).eps
    assert find_scaled_repeats(weight, 5) is None


def test_what_is_no_kernel() -> None:
    """One tap that is not zero, numbers that are none, integers. A factor of zero is one."""
    kernel = torch.tensor([1.0, 2, 1])
    scales = torch.tensor([1.0, 0, -3]).reshape(3, 1, 1)
    assert find_scaled_repeats(scales * kernel, 3) is not None
    assert find_scaled_repeats(scales * torch.tensor([0.0, 2, 0]), 3) is None
    assert find_scaled_repeats(torch.zeros(3, 1, 3), 3) is None
    assert find_scaled_repeats((scales * kernel).int(), 3) is None
    for number in (torch.inf, torch.nan):
        assert find_scaled_repeats((scales * kernel).index_fill(0, torch.tensor([1]), number), 3) is None


def test_only_a_frozen_weight_has_factors() -> None:
    """Training would move every factor, and every copy of the kernel, by itself."""
    conv = nn.Conv2d(3, 3, 3, groups=3)
    conv.weight.data = torch.rand(1, 1, 3, 3) * torch.tensor([1.0, 2.5, -0.3]).reshape(3, 1, 1, 1)
    (trained,) = find_shared_kernels(conv)
    (frozen,) = judge_graph(torch.fx.symbolic_trace(nn.Sequential(conv)), frozen=True)
    assert not trained.shared
    assert frozen.finding.kernel is not None
    assert frozen.finding.kernel.scaled
