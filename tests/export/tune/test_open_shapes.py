"""Sites with open sizes are timed at several shapes. The choice has to hold at all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from desk import Blurs, Desk, Found, X, decide, names
from torch.export import Dim

from export.speed import Timing
from export.tune.candidates import make_candidates
from fx_passes.capture.routes import capture
from fx_passes.choose.static_rules import static_choice
from fx_passes.resample.lowerable import lowerable_sites
from fx_passes.timing.claims import HOLDS, Block, faster_together

SMALL, LARGE = (1, 3, 32, 48), (1, 3, 64, 96)
EIGHT, SIXTEEN = "polyphase(phases=8)", "polyphase(phases=16)"


@pytest.fixture(scope="module")
def found_open() -> Found:
    """The blurs with open height and width, which are wanted fast at two shapes."""
    shapes = ({2: Dim("height", min=8, max=512), 3: Dim("width", min=8, max=512)},)
    graph_module = capture(Blurs().eval(), (X,), dynamic_shapes=shapes).graph_module
    sites = [replace(site, shapes=(SMALL, LARGE)) for site in lowerable_sites(graph_module)[0]]
    return Found(graph_module, sites, *make_candidates(graph_module, sites, "finite"))


def at_each(small: dict[str, float], large: dict[str, float]) -> Callable[[str, str], float]:
    """Times of the candidates at the small shape and at the large one. The original takes 10 ms."""

    def alone(key: str, name: str) -> float:
        times = large if key.endswith("@1x3x64x96") else small
        return {"expand": 10.0, **times}.get(name, 20.0)

    return alone


def test_each_shape_is_timed(found_open: Found) -> None:
    """Once for each distinct site, and kept with the shape."""
    desk = Desk(at_each({EIGHT: 5.0}, {EIGHT: 5.0}))
    plan = decide(desk, found_open)
    wanted = [f"{key}@{shape}" for key in found_open.keys for shape in ("1x3x32x48", "1x3x64x96")]
    assert desk.timed == wanted
    assert list(plan.made["timings_ms"]) == wanted
    assert names(plan) == [EIGHT] * 3


def test_the_best_by_the_geometric_mean(found_open: Found) -> None:
    """One is best at the small shape, another at both together."""
    alone = at_each({EIGHT: 4.0, SIXTEEN: 5.0}, {EIGHT: 9.0, SIXTEEN: 5.0})
    assert names(decide(Desk(alone), found_open)) == [SIXTEEN] * 3


@pytest.mark.parametrize(("large", "chosen"), [(10.0 / HOLDS - 0.01, EIGHT), (10.0 / HOLDS + 0.01, "expand")])
def test_a_choice_holds_at_every_shape(large: float, chosen: str, found_open: Found) -> None:
    """However fast it is at the others."""
    desk = Desk(at_each({EIGHT: 1.0}, {EIGHT: large}))
    assert names(decide(desk, found_open)) == [chosen] * 3


def test_a_lowering_that_slows_one_workload_is_dropped(found_open: Found) -> None:
    """The graph is faster with it on the first, and clearly slower on the second."""
    often, _ = found_open.keys
    desk = Desk(
        at_each({EIGHT: 5.0}, {EIGHT: 5.0}),
        lambda without: 10.0 if without is None else 4.0 + (often in without),
        lambda without: 10.0 if without is None else 5.0 - (often in without),
    )
    plan = decide(desk, found_open)
    assert names(plan) == ["expand", "expand", EIGHT]
    assert len(plan.made["graph"]["at_each"]) == 2


def test_a_graph_that_loses_on_one_workload_keeps_nothing(found_open: Found) -> None:
    """Although it is faster on the other, and by the geometric mean."""
    alone = at_each({EIGHT: 5.0}, {EIGHT: 5.0})
    gains = {"graph": lambda without: 10.0 if without is None else 2.0}
    holds = Desk(alone, **gains, large=lambda without: 10.0)  # type: ignore[arg-type]
    assert names(decide(holds, found_open)) == [EIGHT] * 3
    loses = Desk(alone, **gains, large=lambda without: 10.0 if without is None else 10.5)  # type: ignore[arg-type]
    assert names(decide(loses, found_open)) == ["expand"] * 3


def test_without_time_the_rules_choose(found_open: Found) -> None:
    """They look at the same shapes."""
    wanted = [p.name if (p := static_choice(site, "finite")) else "expand" for site in found_open.sites]
    assert set(wanted) != {"expand"}
    desk = Desk(at_each({}, {}))
    assert names(decide(desk, found_open, budget=0.0)) == wanted
    assert desk.timed == []


def _timing(original: float, optimized: float, blocks: int = 4) -> Timing:
    return Timing((Block((original,), (optimized,), (original,)),) * blocks)


def test_faster_together() -> None:
    """With one input it is the claim of that one. With several none may lose, and each needs its blocks."""
    assert faster_together([_timing(2.0, 1.0)])
    assert not faster_together([_timing(1.0, 1.0)])
    assert faster_together([_timing(2.0, 1.0), _timing(1.0, 1.0)])
    assert not faster_together([_timing(2.0, 1.0), _timing(1.0, 1.1)])
    assert not faster_together([_timing(2.0, 1.0), _timing(2.0, 1.0, blocks=1)])
