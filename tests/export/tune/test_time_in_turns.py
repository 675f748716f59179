"""The candidates of a site run in turns, and those that are clearly slower drop out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import pytest
from desk import Found

from fx_passes.timing.in_turns import time_in_turns


@dataclass
class Bench:
    """Stands in for the sessions of one site and for the clock. Each run takes as long as the test says."""

    times: dict[str, float]
    opened: Counter[str] = field(default_factory=Counter)
    now: float = 0.0

    def open(self, name: str) -> Callable[[], None]:
        self.opened[name] += 1
        return partial(self.run, name)

    def run(self, name: str) -> None:
        self.now += self.times[name] / 1e3

    def timed(self, found: Found, seconds: float) -> dict[str, float]:
        """The times that are measured for the first site. A candidate that was not named takes 2 ms."""
        openers = {name: partial(self.open, name) for name in found.candidates[0].names}
        self.times = dict.fromkeys(openers, 2.0) | self.times
        return time_in_turns(openers, seconds, clock=lambda: self.now)


def test_what_is_clearly_slower_drops_out(found: Found) -> None:
    """What is far behind drops out after one block, what is behind after two. The original never does."""
    far, behind, fast = "polyphase(phases=8)", "polyphase(phases=16)", "polyphase(phases=32)"
    bench = Bench({"expand": 9.0, far: 2.1, behind: 1.5, fast: 1.0})
    times = bench.timed(found, 1e9)
    blocks = {name: bench.opened[name] for name in ("expand", far, behind, fast)}
    assert blocks == {"expand": 6, far: 1, behind: 2, fast: 6}
    assert times == pytest.approx(bench.times)


def test_the_budget_ends_timing(found: Found) -> None:
    """Each candidate is timed in one block in any case. When the time is spent, no block follows."""
    bench = Bench({})
    bench.timed(found, 0.0)
    assert set(bench.opened.values()) == {1}
    bench = Bench({})
    bench.timed(found, 0.3)
    (blocks,) = set(bench.opened.values())
    assert blocks > 1
    one_block = 6 * sum(bench.times.values()) / 1e3
    assert bench.now <= 0.3 + one_block
