"""The sizes that are tried for open dimensions: enough of them, of every kind, within bounds, and cheap."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import sympy
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto
from onnx import helper as oh
from small_files import WEIGHT, write

from export.verify.equivalence import check_equivalence
from export.verify.sizes import CHEAP, GROWTH, Shapes, other_sizes
from fx_passes.capture.asked_sizes import OpenSizes

NAMES = "b h w d".split()


class Slot(NamedTuple):
    """As onnxruntime describes an input."""

    name: str
    shape: list[Any]
    type: str = "tensor(float)"


class Range(NamedTuple):
    """An open size of the example, and the bounds of the model."""

    low: int
    size: int
    high: int | None


def tried(ranges: list[Range], *, bounded: bool = True) -> dict[str, tuple[int, ...]]:
    """The shapes of one input whose sizes are all open, by case."""
    symbols = sympy.symbols(NAMES[: len(ranges)])
    bounds = {symbol: (one.low, one.high) for symbol, one in zip(symbols, ranges, strict=True)}
    sizes = OpenSizes(None, (tuple(symbols),), bounds) if bounded else None
    # An array of this shape without its memory.
    example = np.broadcast_to(np.float32(0), [one.size for one in ranges])
    slots = [Slot("x", NAMES[: len(ranges)])]
    return {name: shape for name, (shape,) in other_sizes(slots, [example], sizes)}


@st.composite
def ranges(draw: st.DrawFn) -> Range:
    low = draw(st.integers(1, 40))
    size = low + draw(st.integers(0, 60))
    return Range(low, size, draw(st.none() | st.integers(size, size + 80)))


@given(ranges(), st.lists(ranges(), min_size=1, max_size=2))
def test_every_open_axis_has_five_other_sizes(batch: Range, axes: list[Range]) -> None:
    """As many as its range holds, up to five; all within the range; and the smallest is one of them."""
    cases = tried([batch, *axes])
    for dim, axis in enumerate(axes, start=1):
        sizes = {shape[dim] for shape in cases.values()} - {axis.size}
        others = math.inf if axis.high is None else axis.high - axis.low
        assert len(sizes) >= min(5, others)
        assert all(axis.low <= n <= (axis.high or math.inf) for n in sizes)
        assert axis.low in sizes | {axis.size}
    if batch.low == 1 and (batch.high or 3) >= 3:
        assert {1, 3} <= {shape[0] for shape in cases.values()} | {batch.size}


@given(st.lists(st.integers(1, 300), min_size=2, max_size=4))
def test_sizes_that_change_together_differ(example: list[int]) -> None:
    """Except for the smallest: so axes that are mixed up show. No input has too many elements."""
    cases = tried([Range(1, size, None) for size in example], bounded=False)
    least = max(GROWTH * math.prod(example), CHEAP)
    for name, shape in cases.items():
        assert math.prod(shape) <= least
        if math.prod(example) <= CHEAP / GROWTH**3 and min(example) > 3 and "batch" not in name:
            assert name == "smallest sizes" or len(set(shape[1:])) == len(example) - 1


def test_sizes_of_every_kind() -> None:
    """Each is what its name says, from an example of one picture."""
    cases = tried([Range(1, 1, None), Range(7, 24, None), Range(7, 28, None)])
    assert cases == {
        "batch of 2": (2, 24, 28),
        "batch of 3": (3, 24, 28),
        "smallest sizes": (1, 7, 7),
        "small sizes": (1, 8, 9),
        "prime sizes": (1, 11, 13),
        "odd sizes": (1, 23, 27),
        "even sizes": (1, 22, 26),
        "sizes between phases": (1, 36, 42),
        "large sizes": (1, 67, 66),
    }


def test_large_sizes_stay_cheap() -> None:
    """Three open sizes are not doubled: eight times the elements is too much."""
    cases = tried([Range(1, 1, None), *[Range(1, 128, None)] * 3])
    assert cases["large sizes"] == (1, 203, 202, 201)


def test_what_two_inputs_share_and_what_conditions_say() -> None:
    """A condition of the model holds in every case, and there are as many cases all the same."""
    h, w = sympy.symbols("h w")
    known = OpenSizes(None, ((1, h), (h, w)), {h: (32, None), w: (1, 9)}, (sympy.Eq(h % 32, 0),))
    example = [np.zeros((1, 64)), np.zeros((64, 5))]
    cases: list[Shapes] = [
        shapes for _, shapes in other_sizes([Slot("x", []), Slot("y", [])], example, known)
    ]
    assert all(x[1] == y[0] and x[1] % 32 == 0 for x, y in cases)
    assert len({x[1] for x, _ in cases} - {64}) >= 5
    assert len({y[1] for _, y in cases} - {5}) >= 5


def test_what_is_a_batch() -> None:
    """What comes first and stands nowhere else. A signal without a batch is tried at as many sizes as any."""
    signal = dict(other_sizes([Slot("x", ["t"])], [np.zeros(64)], None))
    assert len({shape for ((shape,),) in signal.values()} - {64}) >= 5
    slots = [Slot("x", ["n", 3, "m"]), Slot("y", ["m", "n"])]
    turned = dict(other_sizes(slots, [np.zeros((2, 3, 5)), np.zeros((5, 2))], None))
    assert len(turned) == 7
    assert not any("batch" in name for name in turned)


def test_a_guess_that_the_original_refuses_is_a_note(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A file without bounds is tried at 1; the sizes that ran are listed, and nothing else is printed."""
    file = write(
        tmp_path / "a.onnx",
        [oh.make_node("Conv", ["x", "w"], ["y"], group=3, kernel_shape=[3, 3])],
        {"x": (TensorProto.FLOAT, [1, 3, "h", "w_"])},
        {"y": (TensorProto.FLOAT, [1, 3, "i", "j"])},
        w=WEIGHT,
    )
    result = check_equivalence(file, file, example_inputs=[np.zeros((1, 3, 24, 28), np.float32)])
    assert result.passed
    refused = [note.partition(": skipped")[0] for note in result.notes if "refuses this input" in note]
    assert dict.fromkeys(refused) == {"smallest sizes": None, "small sizes": None}
    assert list(result.to_json()["sizes"]) == [
        "prime sizes",
        "odd sizes",
        "even sizes",
        "sizes between phases",
        "large sizes",
    ]
    assert capfd.readouterr().err == ""
