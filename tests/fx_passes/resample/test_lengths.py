"""Open sizes as expressions: samples of them, and what follows from those of an input."""

from __future__ import annotations

import pytest
import sympy
import torch
from calls import Call
from torch.export import Dim

from fx_passes.resample.lengths import at, computed, large_samples, least, plain, samples, values_in

N, H = sympy.symbols("n h", integer=True, positive=True)


def test_samples_are_lengths_in_a_row() -> None:
    """Every residue of a small step is among them; axes in front stay small."""
    found = samples((N, 3, 2 * H), 1, 13)
    assert [values[H] for values in found] == list(range(13, 19))
    assert {values[N] for values in found} == {1, 2, 3}


def test_one_sample_where_no_size_is_open() -> None:
    """Then there is nothing to choose."""
    assert samples((2, 3), 1, 13) == [{}]
    assert list(large_samples((2, 3))) == [{}]


def test_a_size_that_is_not_known_equals_no_number() -> None:
    """So whatever is compared with it differs."""
    assert at((N, 2 * H + 1), {H: 4}) == (N, 9)
    assert plain((N, 3)) == (None, 3)


@pytest.mark.parametrize(
    ("size", "expected"), [(H, 7), (2 * H + N, 16), (sympy.floor((H - 1) / 2) + 1, 4), (64 * N, 128), (5, 5)]
)
def test_a_size_that_is_computed(size: sympy.Expr | int, expected: int) -> None:
    """Sums, products and quotients that are rounded down."""
    assert computed(size, {H: 7, N: 2}) == expected


def test_a_size_that_cannot_be_computed() -> None:
    """It says which."""
    with pytest.raises(ValueError, match="Max"):
        computed(sympy.Max(H, N), {H: 7, N: 2})


def test_the_smallest_size() -> None:
    """A stated bound counts; torch's own bound of 2 says nothing, and zero is no size to be fast at."""
    program = torch.export.export(
        Call(lambda x: torch.cat([x, x[..., 1:, :, :]], 1)),
        (torch.ones(6, 7, 8, 9),),
        dynamic_shapes=({0: Dim("n", min=2), 1: Dim("h", min=3), 2: 2 * Dim("half", min=4, max=9)},),
    )
    shape = next(iter(program.graph.nodes)).meta["val"].shape
    assert [least(size) for size in (*shape, shape[2] + 10)] == [1, 3, 8, 9, 18]


def test_what_the_shape_of_an_input_tells() -> None:
    """Multiples and sums with a number are solved; the first axis that tells a size counts."""
    assert values_in((64 * N, 3, H + 10), (128, 3, 17)) == {N: 2, H: 7}
