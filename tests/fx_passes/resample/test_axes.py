"""A convolution and its surroundings as up, filter, down: the formula of the docstring, spelled out."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fx_passes.records import ConvGeometry
from fx_passes.resample.axes import Axis, Moved, Resample, absorb_after, absorb_before, resample_of

MANY = settings(max_examples=150, deadline=None)


def spelled_out(axis: Axis, mode: str, kernel: list[float], line: list[float]) -> list[float]:
    """y[o] = sum over k of kernel[k] * z[o * down + k * dilation - shift]."""
    padded = line
    if mode != "zeros":
        padded = F.pad(torch.tensor([[line]]), axis.pad, mode=mode)[0, 0].tolist()
    z = {(i - axis.pad[0]) * axis.up: value for i, value in enumerate(padded)}
    return [
        sum(tap * z.get(o * axis.down + k * axis.dilation - axis.shift, 0.0) for k, tap in enumerate(kernel))
        for o in range(axis.size(len(line)))
    ]


def numbers(count: int, start: int) -> list[float]:
    """Integers without a pattern that a wrong index would keep."""
    return [float((i * i * 7 + start) % 11 - 5) for i in range(count)]


def alone(geometry: ConvGeometry, length: int) -> Resample:
    shape = (1, 1, length)
    return resample_of(geometry, 1, 1, 1, False, (shape, shape))


def of_line(taps: int, *, transposed: bool = False, **other: object) -> ConvGeometry:
    """A 1-D convolution of one channel."""
    values = {"stride": 1, "padding": 0, "dilation": 1, "output_padding": 0, "padding_mode": "zeros", **other}
    mode, padding = values.pop("padding_mode"), values.pop("padding")
    stride, dilation, extra = ((values[key],) for key in ("stride", "dilation", "output_padding"))
    op = "conv_transpose1d" if transposed else "conv1d"
    pad = padding if isinstance(padding, str) else (padding,)
    return ConvGeometry(op, 1, 1, 1, (taps,), stride, pad, dilation, extra, mode)  # type: ignore[arg-type]


small = st.integers(1, 4)


@MANY
@given(
    st.integers(1, 6),
    small,
    small,
    st.integers(0, 3),
    st.integers(4, 12),
    st.sampled_from(["zeros", "reflect", "replicate", "circular"]),
)
def test_a_convolution(taps: int, stride: int, dilation: int, padding: int, length: int, mode: str) -> None:
    """The axis of an ordinary convolution gives what torch gives, in any padding mode."""
    geometry = of_line(taps, stride=stride, dilation=dilation, padding=padding, padding_mode=mode)
    (axis,) = alone(geometry, length).axes
    assume(axis.size(length) > 0)
    line, kernel = numbers(length, 1), numbers(taps, 3)
    x = torch.tensor([[line]])
    x = F.pad(x, (padding, padding), mode="constant" if mode == "zeros" else mode)
    assume(x.shape[-1] > axis.span)
    expected = F.conv1d(x, torch.tensor([[kernel]]), None, stride, 0, dilation)
    assert spelled_out(axis, mode, kernel, line) == expected.flatten().tolist()


@MANY
@given(st.integers(1, 6), small, small, st.integers(0, 3), st.integers(0, 3), st.integers(1, 12))
def test_a_transposed_convolution(
    taps: int, stride: int, dilation: int, padding: int, extra: int, length: int
) -> None:
    """The axis of a transposed convolution, with its kernel reversed, gives what torch gives."""
    assume(extra < max(stride, dilation))
    geometry = of_line(
        taps, transposed=True, stride=stride, dilation=dilation, padding=padding, output_padding=extra
    )
    (axis,) = alone(geometry, length).axes
    assume(axis.size(length) > 0)
    line, kernel = numbers(length, 1), numbers(taps, 3)
    expected = F.conv_transpose1d(
        torch.tensor([[line]]), torch.tensor([[kernel[::-1]]]), None, stride, padding, extra, 1, dilation
    )
    assert spelled_out(axis, "zeros", kernel, line) == expected.flatten().tolist()


@pytest.mark.parametrize("taps", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("dilation", [1, 2, 3])
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_padding_by_name(taps: int, dilation: int, padding: str) -> None:
    """``"same"`` puts the odd sample behind, as torch does."""
    (axis,) = alone(of_line(taps, dilation=dilation, padding=padding), 14).axes
    line, kernel = numbers(14, 1), numbers(taps, 3)
    expected = F.conv1d(torch.tensor([[line]]), torch.tensor([[kernel]]), None, 1, padding, dilation)
    assert spelled_out(axis, "zeros", kernel, line) == expected.flatten().tolist()


axes = st.builds(
    Axis,
    taps=st.integers(1, 5),
    up=st.integers(1, 3),
    down=st.integers(1, 3),
    dilation=st.integers(1, 2),
    shift=st.integers(-3, 6),
    extent=st.integers(-6, 6),
)


@MANY
@given(axes, st.integers(1, 9), st.integers(1, 3), st.integers(-3, 4), st.integers(-3, 4))
def test_what_stands_in_front(axis: Axis, length: int, up: int, low: int, high: int) -> None:
    """Stuffing and padding (or cropping, below 0) first, then the axis: the axis that absorbed them.

    Where there is a crop, the axis may not look beyond it: zeros of its own would be samples again.
    """
    count = length * up + low + high
    assume(count > 0)
    assume(low >= 0 or axis.shift <= 0)
    last = (axis.size(count) - 1) * axis.down + axis.span - axis.shift
    assume(high >= 0 or last < count * axis.up)
    line, kernel = numbers(length, 1), numbers(axis.taps, 3)
    spread = [0.0] * (length * up)
    spread[::up] = line
    moved = [0.0] * max(low, 0) + spread[max(-low, 0) :] + [0.0] * max(high, 0)
    moved = moved[: len(moved) + min(high, 0)] if high < 0 else moved
    assume(len(moved) == count)
    expected = spelled_out(axis, "zeros", kernel, moved)
    absorbed = absorb_before(axis, length, Moved(up, low, count))
    assert spelled_out(absorbed, "zeros", kernel, line) == expected


@MANY
@given(axes, st.integers(4, 9), st.tuples(small, small), st.sampled_from(["reflect", "replicate"]))
def test_a_padding_mode_in_front(axis: Axis, length: int, pad: tuple[int, int], mode: str) -> None:
    """A padding by a mode first; zeros of the axis itself come behind it."""
    assume(mode == "replicate" or max(pad) < length)
    line, kernel = numbers(length, 1), numbers(axis.taps, 3)
    padded = F.pad(torch.tensor([[line]]), pad, mode=mode)[0, 0].tolist()
    expected = spelled_out(axis, "zeros", kernel, padded)
    absorbed = absorb_before(axis, length, Moved(1, pad[0], len(padded), pad))
    assert spelled_out(absorbed, mode, kernel, line) == expected
    assert absorbed.pad == pad


@MANY
@given(axes, st.integers(1, 9), st.integers(0, 3), small, st.integers(0, 3))
def test_what_stands_behind(axis: Axis, length: int, first: int, step: int, drop: int) -> None:
    """The axis first, then a Slice: the axis that absorbed it."""
    line, kernel = numbers(length, 1), numbers(axis.taps, 3)
    whole = spelled_out(axis, "zeros", kernel, line)
    kept = whole[first : max(len(whole) - drop, 0) : step]
    assume(kept)
    absorbed = absorb_after(axis, length, first, step, len(kept))
    assert spelled_out(absorbed, "zeros", kernel, line) == kept


def test_a_wrong_shift_is_seen() -> None:
    """Negative control of the comparisons above: one sample off, in any number, and they differ."""
    axis, line, kernel = Axis(3, 2, 3, 2, 1, 4), numbers(9, 1), numbers(3, 3)
    right = spelled_out(axis, "zeros", kernel, line)
    for change in ({"shift": 2}, {"up": 3}, {"down": 2}, {"dilation": 1}, {"extent": 9}):
        assert spelled_out(replace(axis, **change), "zeros", kernel, line) != right  # type: ignore[arg-type]


def test_sizes_may_be_symbols() -> None:
    """``size`` takes whatever adds and multiplies."""

    class Symbol(str):
        def __mul__(self, other: object) -> Symbol:
            return Symbol(f"({self} * {other})")

        def __add__(self, other: object) -> Symbol:
            return Symbol(f"({self} + {other})")

        def __floordiv__(self, other: object) -> Symbol:
            return Symbol(f"({self} // {other})")

    assert Axis(3, up=2, down=3, extent=5).size(Symbol("n")) == "((((n * 2) + 5) // 3) + 1)"


def test_what_a_resample_knows() -> None:
    """Planes, outputs and factors; None where a size is open."""
    line, image = Axis(5, up=4, shift=1), Axis(3, down=2)
    known = Resample((image, line), 3, 2, 1, "zeros", False, (5, 3, 8, 9), (5, 6, 4, 7))
    assert (known.dim, known.up, known.static, known.planes, known.outputs) == (2, 4, True, 15, 5 * 6 * 4 * 7)
    assert known.height_width() == (image, line)
    for shape in ((None, 3, 8, 9), (5, 3, 8, None)):
        unknown = replace(known, in_shape=shape)
        assert (unknown.static, unknown.planes, unknown.outputs) == (False, None, None)
    assert not replace(known, out_shape=(5, 6, None, 7)).static
    assert replace(known, columns=3).planes == 5
    unbatched = replace(known, in_shape=(3, 8, 9), out_shape=(6, 4, 7))
    assert unbatched.planes == 3
    assert replace(known, axes=(line,), in_shape=(5, 3, 9)).height_width() == (Axis(1), line)
    with pytest.raises(FrozenInstanceError):
        known.groups = 4  # type: ignore[misc]


def test_blocks_and_shapes_are_carried() -> None:
    """``resample_of`` copies what the axes do not hold."""
    geometry = ConvGeometry("conv2d", 4, 6, 2, (3, 2), (1, 2), (1, 0), (1, 1), (0, 0), "reflect")
    found = resample_of(geometry, 2, 3, 2, True, ([None, 4, 8, 9], [None, 6, 8, 4]))
    assert (found.groups, found.rows, found.columns, found.block_diagonal) == (2, 3, 2, True)
    assert (found.mode, found.scale) == ("reflect", 1.0)
    assert (found.in_shape, found.out_shape) == ((None, 4, 8, 9), (None, 6, 8, 4))
    assert found.axes == (Axis(3, shift=1, extent=-1, pad=(1, 1)), Axis(2, down=2, extent=-2))
