"""Geometries that the static rules lower, and those that they keep."""

from __future__ import annotations

from dataclasses import replace

import pytest
from places import GAINS, PLACES, conv

from fx_passes.choose.static_rules import static_choice, static_gain


@pytest.mark.parametrize("name", GAINS)
def test_large_gains_are_taken(name: str) -> None:
    """The project is for these geometries. Measured, they gain more than is asked here."""
    place, gain = GAINS[name]
    chosen = static_choice(place, "finite")
    assert chosen is not None
    assert static_gain(place, chosen) > gain


@pytest.mark.parametrize("name", GAINS)
def test_larger_sites_stay_lowered(name: str) -> None:
    """What is worth lowering is still worth it with twice the batch, and with twice the size."""
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


@pytest.mark.parametrize("size", [16, 128, 512])
@pytest.mark.parametrize("channels", [3, 16, 64])
@pytest.mark.parametrize("rows", [2, 4])
def test_wavelets_stay(rows: int, channels: int, size: int) -> None:
    """They have several filters of two taps for every channel. A dense convolution would have few channels,
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


def test_small_sites_stay() -> None:
    """Most of their time is what every run of a session takes."""
    for name, place in PLACES.items():
        tiny = tuple(4 if i >= 2 else n for i, n in enumerate(place.resample.in_shape))
        resample = replace(place.resample, in_shape=tiny, out_shape=tiny)
        assert static_choice(replace(place, resample=resample), "finite") is None or name == "open"
