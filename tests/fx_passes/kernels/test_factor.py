"""A kernel as a sum of products of a column and a row."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fx_passes.kernels.factor import factorise

MANY = settings(max_examples=100, deadline=None)


def product(pairs: list[tuple[Tensor, Tensor]]) -> Tensor:
    return torch.stack([torch.outer(column, row) for column, row in pairs]).sum(0)


def in_float32(pairs: list[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
    """The factors as a float32 model holds them."""
    return [(column.float().double(), row.float().double()) for column, row in pairs]


def binomial(taps: int) -> Tensor:
    return torch.tensor([float(math.comb(taps - 1, k)) for k in range(taps)])


def random_kernel(
    rank: int, height: int, width: int, seed: int, dtype: torch.dtype = torch.float32
) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    columns = torch.randn(height, rank, generator=generator, dtype=torch.float64)
    return (columns @ torch.randn(rank, width, generator=generator, dtype=torch.float64)).to(dtype)


LINES = {
    "binomial 2": binomial(2),
    "binomial 3": binomial(3),
    "binomial 4": binomial(4),
    "binomial 5": binomial(5),
    "binomial 7": binomial(7),
    "binomial 5 / 16": binomial(5) / 16,
    "box 5": torch.ones(5),
    "bilinear 4": torch.tensor([1.0, 3, 3, 1]) / 4,
    "bilinear 8": torch.tensor([1.0, 3, 5, 7, 7, 5, 3, 1]) / 8,
    "Sobel": torch.tensor([1.0, 0, -1]),
    "Haar": torch.tensor([1.0, -1]),
}


@pytest.mark.parametrize("name", LINES)
def test_kernels_of_few_bits_are_exact(name: str) -> None:
    """Binomial, box, bilinear: the factors, as float32, multiply to the very kernel."""
    for other in (LINES[name], torch.tensor([1.0, 2, 1])):
        kernel = torch.outer(LINES[name], other)
        pairs = factorise(kernel, 1)
        assert pairs is not None
        assert torch.equal(product(in_float32(pairs)), kernel.double())


@MANY
@given(st.sampled_from([1, 2, 3]), st.integers(4, 13), st.integers(4, 13), st.integers(0, 999))
def test_kernels_of_low_rank(rank: int, height: int, width: int, seed: int) -> None:
    """As many products as the rank, and no more; off by no more than four units of the largest element."""
    kernel = random_kernel(rank, height, width, seed)
    pairs = factorise(kernel, 3)
    assert pairs is not None
    assert len(pairs) == rank
    assert all((c.shape, r.shape) == ((height,), (width,)) for c, r in pairs)
    assert all(factor.dtype == torch.float64 for pair in pairs for factor in pair)
    allowed = 4 * torch.finfo(torch.float32).eps * float(kernel.abs().max())
    assert float((product(pairs) - kernel).abs().max()) <= allowed
    if rank > 1:
        assert factorise(kernel, rank - 1) is None


@MANY
@given(st.integers(2, 9), st.integers(2, 9), st.integers(0, 999))
def test_rank_1_agrees_element_by_element(height: int, width: int, seed: int) -> None:
    """Through the pivot, small elements are as accurate as large ones: a few units in their last place."""
    kernel = random_kernel(1, height, width, seed) * torch.logspace(0, -30, width)
    kernel[0] = 0
    pairs = factorise(kernel, 1)
    assert pairs is not None
    difference = (product(in_float32(pairs)) - kernel).abs()
    assert bool((difference <= 4 * torch.finfo(torch.float32).eps * kernel.abs() + 1e-44).all())


@pytest.mark.parametrize("rank", [2, 3, 4, 5])
def test_rank_above_the_most(rank: int) -> None:
    """More products than allowed: none at all."""
    kernel = random_kernel(rank, 6, 7, rank)
    assert factorise(kernel, rank - 1) is None
    assert len(factorise(kernel, rank) or []) == rank


def test_one_element_off_is_another_rank() -> None:
    """Negative control: a rank-1 kernel with one element moved by 0.1 percent."""
    kernel = torch.outer(binomial(5), binomial(5))
    kernel[1, 3] *= 1.001
    assert factorise(kernel, 1) is None
    assert len(factorise(kernel, 3) or []) == 2


@pytest.mark.parametrize("number", [torch.nan, torch.inf, -torch.inf])
def test_kernels_that_are_not_finite(number: float) -> None:
    """An Inf or NaN has no factors."""
    kernel = torch.ones(3, 3)
    kernel[1, 2] = number
    assert factorise(kernel, 3) is None


def test_the_zero_kernel() -> None:
    """Zero has no pivot."""
    assert factorise(torch.zeros(3, 3), 3) is None


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_judged_by_its_own_precision(dtype: torch.dtype) -> None:
    """A kernel rounded to its dtype is rank 1 there, and not in a finer one."""
    line = torch.tensor([0.1, 0.7, 0.3, 0.9])
    kernel = torch.outer(line.double(), line.double()).to(dtype)
    assert len(factorise(kernel, 1) or []) == 1
    if dtype != torch.float64:
        assert factorise(kernel.double(), 1) is None


def test_shapes_and_gradients() -> None:
    """Rows, columns and single taps are rank 1; a trainable kernel gives plain numbers."""
    for shape in ((1, 5), (5, 1), (1, 1), (2, 9)):
        kernel = torch.ones(shape, requires_grad=True)
        pairs = factorise(kernel, 1)
        assert pairs is not None
        assert not any(factor.requires_grad for pair in pairs for factor in pair)
        assert torch.equal(product(pairs), torch.ones(shape).double())


def test_the_kernel_is_not_written_to() -> None:
    """The factors hold memory of their own."""
    kernel = torch.outer(binomial(3), binomial(3)).double()
    before = kernel.clone()
    for column, row in factorise(kernel, 1) or []:
        column.zero_()
        row.zero_()
    assert torch.equal(kernel, before)
