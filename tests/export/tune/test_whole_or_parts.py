"""Two sites in a row: they are lowered as one, or each by itself, whatever is faster."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from calls import Call
from desk import Desk, Found, decide, names
from torch import Tensor

from export.tune.candidates import make_candidates
from fx_passes.capture.routes import capture
from fx_passes.choose.static_rules import static_plan
from fx_passes.resample.lowerable import lowerable_sites

ROW, COLUMN = (torch.rand(taps).repeat(3, 1, 1, 1) for taps in ((1, 15), (15, 1)))
PHASES = "polyphase(phases=16)"


def _blur(x: Tensor) -> Tensor:
    return F.conv2d(F.conv2d(x, ROW, padding=(0, 7), groups=3), COLUMN, padding=(7, 0), groups=3)


@pytest.fixture(scope="module")
def row() -> Found:
    """A row and a column, and the whole of them."""
    graph_module = capture(Call(_blur).eval(), (torch.rand(1, 3, 40, 200),)).graph_module
    sites, _ = lowerable_sites(graph_module)
    assert [len(site.parts) for site in sites] == [0, 0, 2]
    return Found(graph_module, sites, *make_candidates(graph_module, sites, "finite"))


def _times(found: Found, *fastest: float) -> Callable[[str, str], float]:
    """Milliseconds: of each site the polyphase form takes so long, the original 10 or 20, all else 30."""
    sites = dict(zip(found.keys, fastest, strict=True))
    originals = dict(zip(found.keys, (10.0, 10.0, 20.0), strict=True))

    def alone(key: str, name: str) -> float:
        return sites[key] if name == PHASES else originals[key] if name == "expand" else 30.0

    return alone


@pytest.mark.parametrize(
    ("times", "chosen"),
    [
        ((4.0, 5.0, 8.0), ["expand", "expand", PHASES]),
        ((4.0, 5.0, 9.5), [PHASES, PHASES, "expand"]),
        ((4.0, 11.0, 13.0), ["expand", "expand", PHASES]),  # the column stays as it is, and takes 10
        ((4.0, 11.0, 15.0), [PHASES, "expand", "expand"]),
        ((4.0, 5.0, 21.0), [PHASES, PHASES, "expand"]),
    ],
)
def test_what_is_faster(times: tuple[float, ...], chosen: list[str], row: Found) -> None:
    """The whole against the sum of what its parts take at best."""
    assert names(decide(Desk(_times(row, *times)), row)) == chosen


def test_without_times_the_rules_decide(row: Found) -> None:
    """No time is left to measure."""
    plan = decide(Desk(_times(row, 1.0, 1.0, 1.0)), row, budget=0.0)
    assert names(plan) == names(static_plan(row.sites))
    assert sum(name != "expand" for name in names(plan)) == 1


def test_siblings_are_compared_one_by_one(row: Found) -> None:
    """A whole whose siblings are timed together takes three times as long as one of them."""
    first, second, whole = row.sites
    three = replace(row, sites=[first, second, replace(whole, siblings=3)])
    desk = Desk(_times(row, 4.0, 5.0, 18.0))
    assert names(decide(desk, row)) == [PHASES, PHASES, "expand"]
    candidates = [
        replace(one, site=replace(one.site, siblings=3)) if one.site.parts else one for one in row.candidates
    ]
    assert names(decide(desk, replace(three, candidates=candidates))) == ["expand", "expand", PHASES]
