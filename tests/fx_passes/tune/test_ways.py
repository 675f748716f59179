"""Each way to time a site computes what the site computes: for siblings, wholes and open sizes, too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from calls import Call
from integers import KERNEL, integers
from told_times import names, only, tell
from torch import Tensor
from torch.export import Dim

from fx_passes import lower
from fx_passes.capture.inference import capture_for_inference
from fx_passes.resample.lowerable import lowerable_sites
from fx_passes.tune.ways import Ways, ways_of

ROW, COLUMN = (integers(taps).repeat(3, 1, 1, 1) for taps in ((1, 15), (15, 1)))
FULL = KERNEL.repeat(3, 1, 1, 1)
PHASES = "polyphase(phases=16)"
MERGED = "sibling_merge(lowering=polyphase, phases=16)"


def row_and_column(x: Tensor) -> Tensor:
    """Two convolutions in a row, which are one site beside their two."""
    return F.conv2d(F.conv2d(x, ROW, padding=(0, 7), groups=3), COLUMN, padding=(7, 0), groups=3)


def siblings(x: Tensor) -> Tensor:
    """Three convolutions that one call may compute."""
    return torch.stack([F.conv2d(y, FULL, padding=1, groups=3) for y in (x, 2 * x, x + 1)])


def padded(x: Tensor) -> Tensor:
    """A convolution with padding of its own, in front of something that is no part of it."""
    return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), FULL, groups=3).relu()


def ways(function: Callable[[Tensor], Tensor], open_sizes: bool) -> list[Ways]:
    """The ways to compute each site of a function."""
    shapes = ({2: Dim.DYNAMIC, 3: Dim.DYNAMIC},) if open_sizes else None
    model, inputs = Call(function).eval(), (integers((1, 3, 40, 50)),)
    graph_module = capture_for_inference(model, inputs, dynamic_shapes=shapes).graph_module
    return ways_of(graph_module, lowerable_sites(graph_module)[0], "finite")


@pytest.mark.parametrize("open_sizes", [False, True], ids=["fixed", "open"])
@pytest.mark.parametrize("function", [row_and_column, siblings, padded])
def test_all_ways_compute_the_same(function: Callable[[Tensor], Tensor], open_sizes: bool) -> None:
    """Of small integers every sum is exact, and phases and separable forms give the bits of the original."""
    for one in ways(function, open_sizes):
        for shape in one.shapes:
            inputs = [integers(shape) for _ in range(one.site.siblings)]
            expected = one.graphs["expand"](*inputs)
            for name, graph in one.graphs.items():
                found = graph(*inputs)
                assert len(found) == len(expected), name
                for a, b in zip(found, expected, strict=True):
                    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-2)


def test_siblings_are_compared_with_all_of_them() -> None:
    """The original of a merged proposal is as many convolutions as it replaces."""
    (one,) = ways(siblings, False)
    assert one.site.siblings == 3
    convolutions = [n for n in one.graphs["expand"].graph.nodes if "conv2d" in n.name]
    assert len(convolutions) == len(one.inputs(one.shapes[0])) == 3
    assert any(proposal.merged for proposal in one.proposals)


@pytest.mark.parametrize(
    ("fast", "chosen"), [(PHASES, [PHASES] * 3), (MERGED, [MERGED] * 3), ("none", ["expand"] * 3)]
)
def test_siblings(fast: str, chosen: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """They are lowered one by one, or together; the plan fits, and the numbers are those of the model."""
    tell(monkeypatch, name=only(fast))
    model, x = Call(siblings).eval(), integers((1, 3, 40, 50))
    lowered = lower(model, "tuned", (x,))
    assert names(lowered) == chosen
    torch.testing.assert_close(lowered(x), model(x))
    torch.testing.assert_close(lower(model, lowered.meta["fx_passes_plan"], (x,))(x), model(x))


@pytest.mark.parametrize("whole", [9.0, 11.0])
def test_the_whole_or_its_parts(whole: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each part takes 5 ms at best. The whole is chosen if it takes less than both; never it and a part."""
    asked: list[Any] = []

    def name(which: str) -> float:
        asked.append(which)
        of_whole = asked.count("expand") == 3
        return (20.0 if of_whole else 10.0) if which == "expand" else whole if of_whole else 5.0

    tell(monkeypatch, name=name)
    model, x = Call(row_and_column).eval(), integers((1, 3, 40, 50))
    lowered = lower(model, "tuned", (x,))
    kept = [chosen == "expand" for chosen in names(lowered)]
    assert kept == ([True, True, False] if whole < 10 else [False, False, True])
    torch.testing.assert_close(lowered(x), model(x))
