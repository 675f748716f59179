"""Two axes in a row as one, against the definition in ``axes.py``."""

from __future__ import annotations

from dataclasses import replace

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fx_passes.resample.axes import Axis, Resample
from fx_passes.resample.compose import composed, product

SMALL = st.integers(1, 4)


@st.composite
def axes(draw: st.DrawFn) -> Axis:
    """An axis of any factors, that pads, cuts, or neither."""
    taps, up, down, dilation = (draw(SMALL) for _ in range(4))
    axis = Axis(taps, draw(st.sampled_from([1, 1, up])), down, dilation)
    low, high = draw(st.integers(-3, 3)), draw(st.integers(-3, 3))
    low, high = draw(st.sampled_from([(0, 0), (low, high)]))
    return replace(axis, shift=low, extent=low + high - axis.span - 1)


def apply(axis: Axis, kernel: Tensor, x: Tensor) -> Tensor:
    """What the definition says, output by output."""
    stuffed = {place * axis.up: value for place, value in enumerate(x.tolist())}
    places = [axis.down * out - axis.shift for out in range(axis.size(len(x)))]
    taps = list(enumerate(kernel.tolist()))
    return torch.tensor(
        [sum(tap * stuffed.get(place + k * axis.dilation, 0.0) for k, tap in taps) for place in places]
    )


def reads_padding(axis: Axis, length: int) -> bool:
    """Whether an output reads anything outside of an input of this length."""
    last = (axis.size(length) - 1) * axis.down + axis.span - axis.shift
    return -axis.shift < 0 or last >= length


@settings(max_examples=1000)
@given(axes(), axes(), st.integers(12, 30), st.integers(0, 99))
def test_two_axes_are_one(first: Axis, second: Axis, length: int, seed: int) -> None:
    """Bit for bit on integers. Where they are not one, the second reads padding at some length, puts in
    zeros, or the product takes more."""
    generator = torch.Generator().manual_seed(seed)
    between = first.size(length)
    if between < 1 or second.size(between) < 1:
        return
    x, a, b = (
        torch.randint(-4, 5, (n,), generator=generator).double() for n in (length, first.taps, second.taps)
    )
    pair = tuple(
        Resample((axis,), 1, 1, 1, "zeros", False, (1, 1, None), (1, 1, None)) for axis in (first, second)
    )
    whole = composed(*pair)
    if whole is not None:
        kernel = product((pair[0], pair[1]), a[None, None], b[None, None])
        if kernel is None:
            assert not (a.any() and b.any())
            return
        assert torch.equal(apply(whole.axes[0], kernel[0, 0], x), apply(second, b, apply(first, a, x)))
        return
    lengths = range(between, between + 2 * second.down)
    taps = first.span + second.span * first.down + 1
    more = taps > first.taps * second.down + second.taps
    assert second.up > 1 or more or any(reads_padding(second, n) for n in lengths)
