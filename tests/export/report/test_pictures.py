"""The pictures of kernels and the plot of the timings show the numbers."""

from __future__ import annotations

import base64
import math
import re
import struct
import zlib

import made_reports as made
import numpy as np
import pytest

from export.report.pictures import HEIGHT, MOST_STEMS, SHOWN, Heat, Stems, pictures_of
from export.report.plots import LEFT, WIDTH, largest_first, pairs_of, plot_of
from export.speed import Timing
from fx_passes.timing.claims import Block


def pixels(text: str) -> np.ndarray:
    """The pixels of a PNG without filters."""
    data = base64.b64decode(text)
    width, height = struct.unpack(">II", data[16:24])
    start = data.index(b"IDAT")
    (length,) = struct.unpack(">I", data[start - 4 : start])
    raw = zlib.decompress(data[start + 4 : start + 4 + length])
    rows = np.frombuffer(raw, np.uint8).reshape(height, 1 + 3 * width)
    assert not rows[:, 0].any()
    return rows[:, 1:].reshape(height, width, 3).astype(int)


def test_the_heat_map_has_the_taps() -> None:
    """One pixel for each tap: red is positive, blue negative, white zero."""
    found = pictures_of(np.array([[[[1.0, 0.0, -1.0], [0.5, 0.0, -0.5]]]]))
    assert found is not None
    (heat,) = found.kernels
    assert isinstance(heat, Heat)
    image = pixels(heat.png)
    assert image.shape == (2, 3, 3)
    red, blue = image[..., 0], image[..., 2]
    assert (red[:, 0] > blue[:, 0]).all()
    assert (blue[:, 2] > red[:, 2]).all()
    assert np.ptp(image[:, 1], axis=-1).max() == 0
    assert (image[1, 0] > image[0, 0]).any()  # half a tap is paler


def test_stems_end_at_the_taps() -> None:
    """Each line goes from zero to its tap."""
    taps = np.array([1.0, -0.5, 0.25, 0.0])
    found = pictures_of(taps.reshape(1, 1, 4))
    assert found is not None
    (stems,) = found.kernels
    assert isinstance(stems, Stems)
    ends = np.array(re.findall(r"M[\d.]+ ([\d.]+)V([\d.]+)", stems.lines), float)
    away = np.where(abs(ends[:, 0] - stems.zero) > 1e-6, ends[:, 0], ends[:, 1])
    np.testing.assert_allclose((stems.zero - away) / (HEIGHT - 12) * 1.5, taps, atol=2e-3)


def test_a_long_kernel_keeps_its_extremes() -> None:
    """More taps than fit are drawn by their extremes, so that no peak is lost."""
    taps = np.zeros(5000)
    taps[1234] = 1.0
    found = pictures_of(taps.reshape(1, 1, -1))
    assert found is not None
    (stems,) = found.kernels
    assert isinstance(stems, Stems)
    assert stems.lines.count("M") == MOST_STEMS
    assert "V6.0" in stems.lines
    assert not stems.dots


@pytest.mark.parametrize("axis", [0, 1])
def test_the_response_is_that_of_the_axis(axis: int) -> None:
    """A mean of two along one axis: its cosine along that axis, and 1 along the other."""
    kernel = np.zeros((1, 1, 2, 2))
    kernel[0, 0, 0, 0] = 0.5
    kernel[(0, 0, *np.eye(2, dtype=int)[axis])] = 0.5
    found = pictures_of(kernel)
    assert found is not None
    assert found.response is not None
    mean, flat = ("height", "width") if axis == 0 else ("width", "height")
    heights = {
        name: [1 - (float(point.split(",")[1]) - 4) / (HEIGHT - 8) for point in points.split()]
        for name, points in found.response.curves.items()
    }
    expected = np.cos(np.linspace(0, math.pi / 2, len(heights[mean])))
    np.testing.assert_allclose(heights[mean], expected, atol=2e-3)
    np.testing.assert_allclose(heights[flat], 1, atol=2e-3)


def test_volumes_and_banks() -> None:
    """A volume has three middle planes; of a bank the first kernels are shown, and the others counted."""
    volume = pictures_of(np.random.default_rng(0).standard_normal((1, 1, 3, 5, 7)))
    assert volume is not None
    assert [(one.height, one.width) for one in volume.kernels if isinstance(one, Heat)] == [
        (5, 7),
        (3, 7),
        (3, 5),
    ]
    bank = pictures_of(np.ones((3, 2, 4)))
    assert bank is not None
    assert (len(bank.kernels), bank.left_out) == (SHOWN, 6 - SHOWN)


@pytest.mark.parametrize("kernel", [np.zeros((1, 1, 0)), np.full((1, 1, 3), np.inf), np.zeros((2, 2))])
def test_no_picture_of_no_numbers(kernel: np.ndarray) -> None:
    """Empty, infinite, without taps: there is nothing to show, and nothing fails."""
    assert pictures_of(kernel) is None


def test_a_kernel_of_zeros_has_no_response() -> None:
    """There is no largest magnitude to scale by."""
    found = pictures_of(np.zeros((1, 1, 3, 3)))
    assert found is not None
    assert found.response is None


@pytest.mark.parametrize("ratio", [0.02, 0.999, 1.0, 1.003, 30.0])
def test_the_plot_holds_all_blocks(ratio: float) -> None:
    """Every dot, interval and the mark of 1 lie on the paper; a larger ratio lies further right."""
    plot = plot_of(made.timing(ratio))
    for row in plot.rows:
        assert len(row.dots) == 8
        assert row.interval is not None
        for x in [*(dot[0] for dot in row.dots), *row.interval, row.middle, plot.one]:
            assert LEFT - 1 <= x <= WIDTH - LEFT + 1
        assert row.interval[0] <= row.middle <= row.interval[1]
    ours, control = (row.middle for row in plot.rows)
    assert (ours > control) == (ratio > 1)
    assert "1x" in [text for _, text in plot.ticks]


def test_a_control_far_from_one() -> None:
    """The mark of 1 is on the paper also where no ratio is near it."""
    plot = plot_of(Timing((Block((3.0,), (1.0,), (2.0,)),)))
    assert LEFT <= plot.one < plot.rows[1].middle < plot.rows[0].middle <= WIDTH - LEFT


def test_one_block_has_no_interval() -> None:
    """Nothing is marked that was not measured."""
    plot = plot_of(made.timing(2.0, blocks=1))
    assert [row.interval for row in plot.rows] == [None, None]
    assert "no interval" in plot.alt


def test_the_rest_is_summed() -> None:
    """Tables of bytes name the largest; their sum is that of all."""
    sizes = {f"w{i}": i for i in range(30)}
    listed = largest_first(sizes, 10)
    assert listed[0] == ("w29", 29)
    assert listed[-1] == ("20 others", sum(range(20)))
    assert sum(size for _, size in listed) == sum(sizes.values())


def test_operators_of_one_file_only() -> None:
    """What one of the files does not have takes no time there."""
    first, second = pairs_of({"Conv": 4.0}, {"Gather": 1.0})
    assert (first.name, first.after, first.shares) == ("Conv", 0.0, (100.0, 0.0))
    assert (second.name, second.before, second.shares) == ("Gather", 0.0, (0.0, 25.0))
