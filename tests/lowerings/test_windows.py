"""Windows of blocks: constant padding is right at every length."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fx_passes.lowerings.forms.windows import Windows, phase_windows, single_windows
from fx_passes.resample.axes import Axis
from fx_passes.resample.phases import phases_of


@st.composite
def windowed_axes(draw: st.DrawFn) -> tuple[Axis, Windows]:
    """An axis, and its windows for some number of phases, or one by one."""
    taps, up, down = draw(st.integers(1, 9)), draw(st.sampled_from([1, 2, 4])), draw(st.integers(1, 3))
    axis = Axis(taps, up, down, draw(st.integers(1, 2)), draw(st.integers(0, 6)), draw(st.integers(-12, 6)))
    phases = phases_of(axis, draw(st.sampled_from([8, 16])))
    if up == 1 and draw(st.booleans()):
        return axis, single_windows(axis)
    assert phases is not None
    return axis, phase_windows(phases)


@given(windowed_axes(), st.integers(20, 300))
def test_constant_padding_gives_all_blocks(case: tuple[Axis, Windows], length: int) -> None:
    """A convolution over the padded input computes as many windows as there are blocks, and no more."""
    axis, windows = case
    padded = length - windows.first + windows.behind(axis)
    blocks = -(-axis.size(length) // windows.count)
    assert (padded - windows.length) // windows.step + 1 == blocks


@given(windowed_axes(), st.integers(40, 300))
def test_what_fills_its_blocks(case: tuple[Axis, Windows], length: int) -> None:
    """Where nothing is cut, the number of outputs is a multiple of those of a block."""
    axis, windows = case
    if windows.fill(axis):
        assert axis.size(length) % windows.count == 0


def test_a_convolution_that_computes_more_does_not_fill() -> None:
    """A slice behind it keeps fewer outputs than there are windows in the input. The others must be cut."""
    for extent, fills in ((-3, True), (-5, False)):
        axis = Axis(taps=3, extent=extent)
        windows = single_windows(axis)
        assert windows.behind(axis) == extent + 3
        assert windows.fill(axis) is fills
