"""Polyphase: T neighbouring outputs as T filters on one window of the input."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fx_passes.resample.axes import Axis
from fx_passes.resample.phases import Phases, phase_weight, phases_of

MANY = settings(max_examples=200, deadline=None)
axes = st.builds(
    Axis,
    taps=st.integers(1, 6),
    up=st.integers(1, 5),
    down=st.integers(1, 4),
    dilation=st.integers(1, 3),
    shift=st.integers(-7, 9),
)


@MANY
@given(axes, st.integers(1, 9), st.integers(-4, 4))
def test_every_output_meets_the_taps_that_it_has(axis: Axis, count: int, block: int) -> None:
    """Output b * T + t takes input i with tap (up * i - o * down + shift) / dilation: all of those, no
    other."""
    phases = phases_of(axis, count)
    if count * axis.down % axis.up:
        assert phases is None
        return
    assert phases is not None
    assert (phases.count, phases.step * axis.up) == (count, count * axis.down)
    for phase, row in enumerate(phases.taps):
        output = block * count + phase
        met = {block * phases.step + phases.first + j: tap for j, tap in enumerate(row) if tap >= 0}
        wanted = {}
        for tap in range(axis.taps):
            sample, rest = divmod(output * axis.down + tap * axis.dilation - axis.shift, axis.up)
            if rest == 0:
                wanted[sample] = tap
        assert met == wanted


@MANY
@given(axes, st.integers(1, 9))
def test_no_window_is_longer_than_needed(axis: Axis, count: int) -> None:
    """Windows end where a tap of some phase may lie; all rows have one length."""
    phases = phases_of(axis, count)
    if phases is None:
        return
    assert {len(row) for row in phases.taps} == {phases.window}
    reach = axis.span + (count - 1) * axis.down
    assert 1 <= phases.window <= reach // axis.up + 1


@pytest.mark.parametrize("count", [1, 2, 8, 16])
def test_phases_of_a_plain_filter(count: int) -> None:
    """Without up and down, phase t is the filter moved by t: a band of T rows."""
    phases = phases_of(Axis(3, shift=1), count)
    assert phases is not None
    assert (phases.first, phases.step, phases.window) == (-1, count, count + 2)
    assert phases.taps[0] == (0, 1, 2, *[-1] * (count - 1))
    assert phases.taps[-1] == (*[-1] * (count - 1), 0, 1, 2)


def test_phases_of_a_transposed_filter() -> None:
    """Stride 2: even outputs take one half of the taps, odd ones the other."""
    phases = phases_of(Axis(4, up=2, shift=3), 2)
    assert phases == Phases(first=-1, step=1, taps=((1, 3), (0, 2)))


def test_a_block_has_to_begin_on_a_sample() -> None:
    """8 outputs at stride 3 are 8 / 3 samples."""
    assert phases_of(Axis(4, up=3), 8) is None
    found = phases_of(Axis(4, up=3), 9)
    assert found is not None
    assert found.step == 3


def test_weights_of_phases() -> None:
    """Taps take the place of their dimension; where there is none, there is a zero, in the kernel's dtype."""
    phases = phases_of(Axis(2, dilation=2), 2)
    assert phases is not None
    assert phases.taps == ((0, -1, 1, -1), (-1, 0, -1, 1))
    kernel = torch.tensor([[1.0, 2], [3, 4], [5, 6]], dtype=torch.float16)
    across = phase_weight(kernel, phases, 1)
    assert across.shape == (3, 2, 4)
    assert across.dtype == torch.float16
    assert across[2].tolist() == [[5, 0, 6, 0], [0, 5, 0, 6]]
    down = phase_weight(kernel.t(), phases, 0)
    assert down.shape == (2, 4, 3)
    assert torch.equal(down, across.permute(1, 2, 0))


def test_a_tap_that_is_infinite_stays_where_it_is() -> None:
    """Places without a tap are zero, whatever the first tap holds."""
    phases = phases_of(Axis(2), 2)
    assert phases is not None
    weight = phase_weight(torch.tensor([torch.inf, 1.0]), phases, 0)
    assert weight.tolist() == [[torch.inf, 1, 0], [0, torch.inf, 1]]
