"""The gain of a lowering is the work of the original over its own work, as both are counted."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from places import GAINS, IMAGE, PLACES, RANK_1, Place, conv, transposed

from fx_passes.choose import static_rules as choose
from fx_passes.choose.static_rules import static_choice, static_gain
from fx_passes.costs import operator_times as costs
from fx_passes.costs import shared_parts as parts
from fx_passes.costs.site_sizes import Sizes, sizes_of
from fx_passes.lowerings import MODULES, propose
from fx_passes.records import Proposal


@pytest.mark.parametrize("name", PLACES)
def test_work_never_falls_with_the_size(name: str) -> None:
    """Twice the batch, height or width is no less work, for the original and for every lowering."""
    place = PLACES[name]
    if place.resample.dim > 2:
        return
    small = sizes_of(place.resample, own_bias=False, transposed=place.transposed)
    for lowering in propose(place.resample, place.kernel)[0]:
        for block in (8, 16):
            before = _nanoseconds(small, lowering, block)
            for larger in _larger(small):
                after = _nanoseconds(larger, lowering, block)
                assert after[0] >= before[0]
                assert after[1] >= before[1]


def _nanoseconds(sizes: Sizes, lowering: Proposal, block: int) -> tuple[float, float]:
    pair = choose.works(sizes, lowering, block)
    assert pair is not None
    return costs.nanoseconds(pair[0]), costs.nanoseconds(pair[1])


def _larger(sizes: Sizes) -> list[Sizes]:
    (height, width), (out_height, out_width) = sizes.inputs, sizes.outputs
    wide = replace(sizes, inputs=(height, 2 * width), outputs=(out_height, 2 * out_width))
    high = replace(sizes, inputs=(2 * height, width), outputs=(2 * out_height, out_width))
    return [replace(sizes, items=2 * sizes.items), wide, *([high] if sizes.dim == 2 else [])]


OPEN: Any = Place(replace(IMAGE, in_shape=(None, 3, None, None), out_shape=(None, 3, None, None)), RANK_1)
PHASES = Proposal("separable_polyphase", (("phases", 16),), "finite")


def test_an_open_site_has_to_gain_at_every_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """If no example is known, the gain of a site with open sizes is the smallest one at the sizes that are
    assumed."""
    assumed, gains = choose._ASSUMED, []
    for one in assumed:
        monkeypatch.setattr(choose, "_ASSUMED", (one,))
        gains.append(static_gain(OPEN, PHASES))
    assert len(set(gains)) == len(gains)
    monkeypatch.setattr(choose, "_ASSUMED", assumed)
    assert static_gain(OPEN, PHASES) == min(gains)
    monkeypatch.setattr(choose, "_ASSUMED", ((1, 4), *assumed))
    assert static_choice(OPEN, "finite") is None


def test_an_open_site_has_to_gain_at_the_sizes_of_the_example(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gain is the smallest one at the shapes that are wanted. At a quarter of them, and at four times,
    the lowering need only not lose."""
    gains: dict[tuple[int, ...], float] = {}
    looked: list[tuple[int, ...]] = []

    def gain(site: Any, proposal: Proposal, instead: Any, shape: Any) -> float:
        looked.append(tuple(shape))
        return gains.get(tuple(shape), 9.0)

    monkeypatch.setattr(choose, "_gain", gain)
    wanted = ((4, 3, 40, 80), (1, 3, 400, 200))
    place = replace(OPEN, shapes=wanted)
    gains |= {wanted[0]: 3.0, wanted[1]: 2.0}
    assert static_gain(place, PHASES) == 2.0
    assert set(looked) > {(1, 3, 10, 20), (16, 3, 160, 320), (1, 3, 100, 50), (4, 3, 1600, 800)}
    gains[1, 3, 10, 20] = 1.1
    assert static_gain(place, PHASES) == pytest.approx(1.1 * choose.MARGIN)
    gains[1, 3, 10, 20] = 0.9
    assert static_gain(place, PHASES) < choose.MARGIN


def test_what_is_cut_off_counts() -> None:
    """With known sizes, nothing is cut if the outputs fill the blocks. With open ones that is so only if they
    fill them at every length."""
    shape = (1, 3, 64, 64)
    known = sizes_of(replace(IMAGE, in_shape=shape), own_bias=False, transposed=False)
    open_ = sizes_of(OPEN.resample, own_bias=False, transposed=False, shape=shape)
    assert (known.outputs, known.known, open_.known) == (open_.outputs, True, False)
    cut = costs.moved(known.written)
    for count in (4, 16):
        assert parts.tail(open_, count) == parts.tail(known, count) + cut
    up = replace(open_, width=replace(open_.width, up=8, extent=7), outputs=(64, 512))
    assert parts.tail(up, 16) == parts.tail(up, 8) + costs.moved(up.written)


def test_both_widths_of_registers_have_to_gain(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same file serves machines with 8 and with 16 channels in a block."""
    place = conv((1, 16, 64, 64), (2, 2), rows=4)
    proposal = Proposal("fold_channels", (), "reordered")
    gains = []
    for blocks in ((8,), (16,), (8, 16)):
        monkeypatch.setattr(choose, "_BLOCKS", blocks)
        gains.append(static_gain(place, proposal))
    assert gains[0] != gains[1]
    assert gains[2] == min(gains)


def test_the_bias_of_each_channel_costs() -> None:
    """Most lowerings add it at the end, in one more pass."""
    place, proposal = PLACES["rank 1"], Proposal("separable_polyphase", (("phases", 16),), "finite")
    shared = static_gain(replace(place, bias=torch.rand(1)), proposal)
    assert shared == static_gain(place, proposal)
    assert static_gain(replace(place, bias=torch.rand(3)), proposal) < shared


def test_zeros_that_the_model_fills_in_are_its_own_work() -> None:
    """An ordinary convolution on a stuffed input multiplies with the zeros. A transposed one does not."""
    place = transposed((64, 1, 64, 64), (4, 4), 2)
    proposal = Proposal("transposed_polyphase", (("interleave", "stack"), ("phases", 16)), "finite")
    assert static_gain(replace(place, transposed=False), proposal) > static_gain(place, proposal)


def test_no_lowering_says_how_good_it_is() -> None:
    """A lowering only counts what it does. Another place says what a count costs, and what is worth it."""
    assert [f.name for f in fields(Proposal)] == ["lowering", "params", "exactness", "merged"]
    for module in MODULES.values():
        source = Path(str(module.__file__)).read_text()
        assert "NANOSECONDS" not in source
        assert "nanoseconds" not in source


def test_every_count_has_its_time() -> None:
    """Everything that is counted is in the table of constants, and every constant there is for something."""
    counted = {"run"}
    for place in [*PLACES.values(), *(place for place, _ in GAINS.values())]:
        if place.resample.dim > 2:
            continue
        sizes = sizes_of(place.resample, own_bias=True, transposed=place.transposed)
        for proposal in propose(place.resample, place.kernel)[0]:
            pair = choose.works(sizes, proposal, 8)
            assert pair is not None
            counted |= {*pair[0], *pair[1]}
    assert counted == set(costs.NANOSECONDS)
    assert all(value > 0 for value in costs.NANOSECONDS.values())
