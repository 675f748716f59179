"""Convolutions of one channel in each group, computed by their definition, are those of torch."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from export.verify.convolution64 import compute, convolution

aten = torch.ops.aten.convolution.default
Arguments = tuple[object, ...]


@st.composite
def arguments(draw: st.DrawFn) -> Arguments:
    """Those of ``aten.convolution``, in one to three dimensions."""
    dim, transposed = draw(st.integers(1, 3)), draw(st.booleans())
    rows, groups, channels = (
        draw(st.integers(1, 6)),
        draw(st.sampled_from([1, 2, 5])),
        draw(st.sampled_from([1, 1, 2])),
    )

    def numbers(low: int, high: int) -> list[int]:
        return draw(st.lists(st.integers(low, high), min_size=dim, max_size=dim))

    kernel, stride, dilation, padding = numbers(1, 4), numbers(1, 3), numbers(1, 2), numbers(0, 2)
    extra = [
        draw(st.integers(0, max(s, d) - 1)) if transposed else 0
        for s, d in zip(stride, dilation, strict=True)
    ]
    whole = [groups * channels, rows] if transposed else [groups * rows, channels]
    random = torch.Generator().manual_seed(draw(st.integers(0, 99)))

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    x = drawn(draw(st.integers(1, 2)), groups * channels, *numbers(7, 9))
    bias = draw(st.sampled_from([None, drawn(groups * rows)]))
    return x, drawn(*whole, *kernel), bias, stride, padding, dilation, transposed, extra, groups


@given(arguments())
def test_it_is_what_torch_gives(given: Arguments) -> None:
    """To the last digits; the order of the sums is another."""
    expected = aten(*given)
    torch.testing.assert_close(convolution(*given), expected, rtol=0, atol=1e-12)  # type: ignore[arg-type]


def test_a_kernel_larger_than_its_input() -> None:
    """It is refused, as torch does."""
    x, weight = torch.rand(1, 2, 3, dtype=torch.float64), torch.rand(2, 1, 5, dtype=torch.float64)
    rest = ([1], [0], [1], False, [0], 2)
    with pytest.raises(RuntimeError):
        aten(x, weight, None, *rest)
    with pytest.raises(ValueError, match=r"a kernel of \[5\] taps is larger than its padded input"):
        convolution(x, weight, None, *rest)


def test_other_operators_and_types_go_to_torch() -> None:
    """Bit for bit."""
    x, weight = torch.rand(1, 4, 9), torch.rand(4, 1, 3)
    given = (x, weight, None, [1], [0], [1], False, [0], 4)
    assert torch.equal(compute(aten, given, {}), aten(*given))
    assert torch.equal(compute(torch.ops.aten.sin.default, (x,), {}), x.sin())
