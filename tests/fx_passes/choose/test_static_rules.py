"""Proposals -> plan, by rules that look at geometry alone."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from fx_passes.choose import static_rules as choose
from fx_passes.choose.static_rules import MARGIN, preferred, static_choice, static_gain, static_plan
from fx_passes.costs import operator_times as costs
from fx_passes.costs.site_sizes import Sizes, sizes_of
from fx_passes.lowerings import MODULES, propose
from fx_passes.plan import Choice, Plan
from fx_passes.records import EXACTNESS, Exactness, Proposal
from fx_passes.resample.axes import Axis, Resample

AXIS = Axis(5, shift=2, extent=-1)
IMAGE = Resample((AXIS, AXIS), 3, 1, 1, "zeros", False, (1, 3, 64, 64), (1, 3, 64, 64))
SOUND = Resample((AXIS,), 32, 1, 1, "zeros", False, (1, 32, 400), (1, 32, 400))
RANK_1 = torch.ones(1, 1, 5, 5)


def random(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@dataclass(frozen=True)
class Place:
    """A site, as far as a choice looks at it: ``Any`` where it is passed on, for a ``Site`` holds more."""

    resample: Resample
    kernel: Tensor = field(default_factory=lambda: random(1, 1, 5, 5))
    id: str = "blur"
    key: str = "0a"
    bias: Tensor | None = None
    transposed: bool = False
    siblings: int = 1


PLACES: dict[str, Any] = {
    "rank 1": Place(IMAGE, RANK_1),
    "any rank": Place(IMAGE),
    "16 groups": Place(replace(IMAGE, groups=16), RANK_1),
    "block-diagonal": Place(replace(IMAGE, block_diagonal=True)),
    "blocks": Place(replace(IMAGE, rows=2, columns=2), random(2, 2, 5, 5)),
    "transposed": Place(replace(IMAGE, axes=(replace(AXIS, up=2), replace(AXIS, up=2))), transposed=True),
    "sound": Place(SOUND, random(1, 1, 5)),
    "open": Place(replace(IMAGE, in_shape=(None, 3, 64, 64), out_shape=(None, 3, 64, 64)), RANK_1),
    "3-D": Place(replace(IMAGE, axes=(AXIS, AXIS, AXIS), in_shape=(1, 3, 16, 16, 16)), random(1, 1, 5, 5, 5)),
}


@pytest.mark.parametrize("exactness", EXACTNESS)
@pytest.mark.parametrize("name", PLACES)
def test_the_choice_is_the_least_work_that_is_allowed(name: str, exactness: Exactness) -> None:
    """It is proposed, exact enough, gains more than any other, and enough."""
    place = PLACES[name]
    proposals, _ = propose(place.resample, place.kernel)
    allowed = [p for p in proposals if EXACTNESS.index(p.exactness) <= EXACTNESS.index(exactness)]
    most = max([static_gain(place, p) for p in allowed], default=0.0)
    chosen = static_choice(place, exactness)
    if most >= MARGIN:
        assert chosen in allowed
        assert chosen is not None
        assert static_gain(place, chosen) == most
    else:
        assert chosen is None


def test_exactness_limits_the_choice() -> None:
    """RGB images are lowered, 3-D convolutions are not; bitwise, nothing is."""
    chosen = {name: static_choice(place, "finite") for name, place in PLACES.items()}
    assert {"rank 1", "open"} <= {name for name, choice in chosen.items() if choice}
    assert chosen["3-D"] is None
    places = [*PLACES.values(), *(place for place, _ in GAINS.values())]
    assert all(static_choice(place, "bitwise") is None for place in places)
    reordered = [choice for place in places if (choice := static_choice(place, "reordered"))]
    assert {choice.exactness for choice in reordered} == {"reordered"}


def conv(
    shape: tuple[int, ...],
    taps: tuple[int, ...],
    *,
    stride: tuple[int, ...] = (),
    rows: int = 1,
    columns: int = 1,
    dense: bool = False,
    rank: int = 1,
) -> Any:
    """A convolution of one kernel on (N, channels, *size), padded by half a kernel."""
    steps = stride or (1,) * len(taps)
    axes = tuple(Axis(n, 1, s, 1, n // 2, n // 2 * 2 - n) for n, s in zip(taps, steps, strict=True))
    sizes = tuple(axis.size(size) for axis, size in zip(axes, shape[2:], strict=True))
    groups = shape[1] // columns
    resample = Resample(axes, groups, rows, columns, "zeros", dense, shape, (shape[0], groups * rows, *sizes))
    kernel = torch.ones(rows, columns, *taps) if rank == 1 else random(rows, columns, *taps)
    return Place(resample, kernel)


def transposed(shape: tuple[int, ...], taps: tuple[int, ...], stride: int, rank: int = 1) -> Any:
    """A transposed convolution as many times as large as its input."""
    shift = taps[0] - 1 - (taps[0] - stride) // 2
    axes = tuple(Axis(n, stride, 1, 1, shift, -1) for n in taps)
    out = (*shape[:2], *(axis.size(size) for axis, size in zip(axes, shape[2:], strict=True)))
    resample = Resample(axes, shape[1], 1, 1, "zeros", False, shape, out)
    kernel = torch.ones(1, 1, *taps) if rank == 1 else random(1, 1, *taps)
    return Place(resample, kernel, transposed=True)


@pytest.mark.parametrize("size", [16, 128, 512])
@pytest.mark.parametrize("channels", [3, 16, 64])
@pytest.mark.parametrize("rows", [2, 4])
def test_wavelets_stay(rows: int, channels: int, size: int) -> None:
    """Several filters of two taps for every channel: what a dense convolution computes has few channels,
    which leaves most of a block empty."""
    assert static_choice(conv((1, channels, size, size), (1, 2), stride=(1, 2), rows=rows), "finite") is None
    assert static_choice(conv((1, channels, size, size), (2, 2), stride=(2, 2), rows=rows), "finite") is None
    assert static_choice(conv((1, channels, size * 8), (2,), stride=(2,), rows=rows), "finite") is None


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("taps", [2, 3, 5])
@pytest.mark.parametrize("size", [8, 56, 224])
@pytest.mark.parametrize("channels", [16, 64, 256])
def test_depthwise_layers_stay(channels: int, size: int, taps: int, stride: int) -> None:
    """onnxruntime computes them well, and keeps them in blocks between their neighbours."""
    place = conv((1, channels, size, size), (taps, taps), stride=(stride, stride), rank=2)
    assert static_choice(place, "finite") is None


GAINS: dict[str, tuple[Any, float]] = {
    "blur 11x11": (conv((1, 3, 256, 256), (11, 11)), 5),
    "blur 31x31": (conv((1, 3, 512, 512), (31, 31)), 20),
    "pyramid": (conv((1, 3, 256, 256), (5, 5)), 2),
    "any rank 9x9": (conv((1, 3, 256, 256), (9, 9), rank=2), 1.5),
    "dense 64": (conv((1, 64, 64, 64), (4, 4), stride=(2, 2), dense=True), 4),
    "dense 256": (conv((1, 256, 64, 64), (4, 4), stride=(2, 2), dense=True), 8),
    "planes": (replace(conv((64, 1, 64, 64), (4, 4), stride=(2, 2)), kernel=torch.ones(1, 1, 4, 4)), 2),
    "bilinear": (transposed((1, 21, 64, 64), (16, 16), 8), 2),
    "any rank transposed": (transposed((1, 64, 64, 64), (12, 12), 2, rank=2), 2),
    "sound down": (conv((1, 64, 4000), (12,), stride=(2,)), 2),
    "sound up": (transposed((1, 64, 2000), (12,), 2), 2),
    "activation": (transposed((1, 512, 1000), (12,), 2), 2),
}


@pytest.mark.parametrize("name", GAINS)
def test_large_gains_are_taken(name: str) -> None:
    """The geometries that the project is for; measured, their gains are larger than what is asked here."""
    place, gain = GAINS[name]
    chosen = static_choice(place, "finite")
    assert chosen is not None
    assert static_gain(place, chosen) > gain


@pytest.mark.parametrize("name", GAINS)
def test_larger_sites_stay_lowered(name: str) -> None:
    """Twice the batch and twice the size, and what was worth it is worth it still."""
    place, _ = GAINS[name]
    resample = place.resample
    twice = {n: (2 * getattr(resample, n)[0], *getattr(resample, n)[1:]) for n in ("in_shape", "out_shape")}
    batch = replace(resample, **twice)
    sizes = tuple(2 * size for size in resample.in_shape[2:])
    out = (axis.size(size) for axis, size in zip(resample.axes, sizes, strict=True))
    wide = replace(
        resample, in_shape=(*resample.in_shape[:2], *sizes), out_shape=(*resample.out_shape[:2], *out)
    )
    for larger in (batch, wide):
        assert static_choice(replace(place, resample=larger), "finite") is not None


@pytest.mark.parametrize("name", PLACES)
def test_work_never_falls_with_the_size(name: str) -> None:
    """Of the original and of every lowering: twice the batch, height or width is no less work."""
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


def test_small_sites_stay() -> None:
    """What every run of a session takes is most of their time."""
    for name, place in PLACES.items():
        tiny = tuple(4 if i >= 2 else n for i, n in enumerate(place.resample.in_shape))
        resample = replace(place.resample, in_shape=tiny, out_shape=tiny)
        assert static_choice(replace(place, resample=resample), "finite") is None or name == "open"


def test_an_open_site_has_to_gain_at_every_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gain of a site with open sizes is the least of those at the sizes that they may have."""
    resample = replace(IMAGE, in_shape=(None, 3, None, None), out_shape=(None, 3, None, None))
    proposal = Proposal("separable_polyphase", (("phases", 16),), "finite")
    known = []
    for batch, side in choose._ASSUMED:
        shape = batch, 3, side, side
        place: Any = Place(replace(IMAGE, in_shape=shape, out_shape=shape), RANK_1)
        known.append(static_gain(place, proposal))
    assert len(set(known)) == len(known)
    open_place: Any = Place(resample, RANK_1)
    assert static_gain(open_place, proposal) == min(known)
    monkeypatch.setattr(choose, "_ASSUMED", ((1, 4), *choose._ASSUMED))
    assert static_choice(open_place, "finite") is None


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
    """It is added at the end of most lowerings, in one more pass."""
    place, proposal = PLACES["rank 1"], Proposal("separable_polyphase", (("phases", 16),), "finite")
    shared = static_gain(replace(place, bias=torch.rand(1)), proposal)
    assert shared == static_gain(place, proposal)
    assert static_gain(replace(place, bias=torch.rand(3)), proposal) < shared


def test_zeros_that_the_model_fills_in_are_its_own_work() -> None:
    """An ordinary convolution on a stuffed input multiplies with the zeros, a transposed one does not."""
    place = transposed((64, 1, 64, 64), (4, 4), 2)
    proposal = Proposal("transposed_polyphase", (("interleave", "stack"), ("phases", 16)), "finite")
    assert static_gain(replace(place, transposed=False), proposal) > static_gain(place, proposal)


def unknown_lowering(monkeypatch: pytest.MonkeyPatch, name: str = "zeroth") -> Proposal:
    """A lowering that somebody added as a file."""
    proposal = Proposal(name, (), "reordered")
    module = ModuleType(name)
    module.propose = lambda resample, kernel: [proposal]  # type: ignore[attr-defined]
    monkeypatch.setitem(MODULES, name, module)
    return proposal


def test_a_lowering_that_is_not_ranked_is_never_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """It needs no number: it is proposed, for tuning to time, and the rules choose as without it."""
    before = {name: static_choice(place, "finite") for name, place in PLACES.items()}
    proposal = unknown_lowering(monkeypatch)
    for name, place in PLACES.items():
        assert proposal in propose(place.resample, place.kernel)[0]
        assert static_gain(place, proposal) == 0.0
        assert static_choice(place, "finite") == before[name]
    siblings: Any = Place(IMAGE, RANK_1, siblings=3)
    assert static_gain(siblings, Proposal("zeroth", (), "finite", merged=True)) == 0.0


def test_preferred_is_the_least_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the order; what is not ranked comes last, the first of those before others."""
    unknown = unknown_lowering(monkeypatch)
    for place in PLACES.values():
        proposals = [p for p in propose(place.resample, place.kernel)[0] if p != unknown]
        if not proposals:
            continue
        most = max(static_gain(place, p) for p in proposals)
        for order in ([unknown, *proposals], [*reversed(proposals), unknown]):
            assert static_gain(place, preferred(place, order)) == most
    other = Proposal("other", (), "finite")
    assert preferred(PLACES["sound"], [other, unknown]) == other


def test_no_lowering_says_how_good_it_is() -> None:
    """It counts what it does; what a count costs, and what is worth it, is said once for all."""
    assert [f.name for f in fields(Proposal)] == ["lowering", "params", "exactness", "merged"]
    for module in MODULES.values():
        source = Path(str(module.__file__)).read_text()
        assert "NANOSECONDS" not in source
        assert "nanoseconds" not in source


def test_a_lowering_without_work_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is proposed, and timed; the rules take another."""
    place = PLACES["rank 1"]
    first = static_choice(place, "finite")
    assert first is not None
    monkeypatch.delattr(MODULES[first.lowering], "work")
    assert first in propose(place.resample, place.kernel)[0]
    second = static_choice(place, "finite")
    assert second is None or second.lowering != first.lowering


def test_every_count_has_its_time() -> None:
    """All that is counted is in the table of constants, and no constant is for nothing."""
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


def test_a_proposal_survives_its_own_json() -> None:
    """A choice that was written and read is equal to what it was."""
    for name, place in PLACES.items():
        for proposal in propose(place.resample, place.kernel)[0]:
            plan = Plan({name: Choice("0a", proposal)})
            assert Plan.from_json(plan.to_json()).choices[name].proposal == proposal


def test_the_plan_is_the_same_again() -> None:
    """One choice for each site, in their order, with their keys; the same text twice."""
    sites = [replace(place, id=name, key=f"key of {name}") for name, place in PLACES.items()]
    plan = static_plan(sites)
    assert plan.to_json() == static_plan(sites).to_json()
    assert list(plan.choices) == list(PLACES)
    for site in sites:
        assert plan.choices[site.id].key == site.key
        assert plan.choices[site.id].proposal == static_choice(site, "finite")
    assert plan.made == {"by": "static rules"}
    assert static_plan(sites, "reordered").exactness == "reordered"


def test_numbers_do_not_matter() -> None:
    """Kernels of one rank get one choice, whatever they hold: no clock, no machine, no values."""
    for place in PLACES.values():
        assert static_choice(replace(place, kernel=place.kernel * -3), "finite") == static_choice(
            place, "finite"
        )
