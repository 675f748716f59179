"""What is said about times whose truth is known: of contestants that only pretend, and of real sessions."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from export import measure_speed
from export.report.text import speed_text
from export.speed import Timing
from export.write_onnx.exporter import stock_export
from fx_passes.timing.blocks import BLOCKS, FEWEST_ROUNDS, MOST_ROUNDS, ratio_of, time_blocks
from fx_passes.timing.claims import Block


class Machine:
    """A clock, and contestants that move it: ``opens(which)`` and ``runs(which)`` say by how many seconds."""

    def __init__(
        self, runs: Callable[[int], float], opens: Callable[[int], float] = lambda which: 0.0
    ) -> None:
        self.now = 0.0
        self.runs, self.opens = runs, opens
        self.opened: list[int] = []
        self.ran: list[int] = []

    def contestant(self, which: int) -> Callable[[], Callable[[], Any]]:
        def opened() -> Callable[[], Any]:
            self.opened.append(which)
            self.now += self.opens(which)
            return run

        def run() -> None:
            self.ran.append(which)
            self.now += self.runs(which)

        return opened

    def measure(self, seconds: float = 1e9, **more: Any) -> Timing:
        contestants = [self.contestant(which) for which in range(3)]
        blocks = time_blocks(contestants, seconds=seconds, clock=lambda: self.now, **more)
        return Timing(tuple(Block(*block) for block in blocks))


def fresh(rng: np.random.Generator, ratio: float, session: float, run: float) -> Machine:
    """Times of 1 ms (the second file: over ``ratio``), a factor for each session and one for each run."""
    factors = [1.0, 1.0, 1.0]

    def opens(which: int) -> float:
        factors[which] = rng.lognormal(0.0, session)
        return 0.0

    def runs(which: int) -> float:
        return 1e-3 / (ratio if which == 1 else 1.0) * factors[which] * rng.lognormal(0.0, run)

    return Machine(runs, opens)


@pytest.mark.slow
def test_a_file_against_itself_is_not_called_faster() -> None:
    """Sessions of one file differ by 2 %: of 45 measurements at most 3 claim, 38 intervals cover 1."""
    timings = [fresh(np.random.default_rng(seed), 1.0, 0.02, 0.05).measure() for seed in range(45)]
    assert sum(t.faster or t.slower for t in timings) <= 3
    assert sum(t.ci95[0] <= 1 <= t.ci95[1] for t in timings) >= 38


def test_sessions_that_stay_open_would_claim() -> None:
    """The planted fault: one pair of sessions for all blocks claims again and again."""

    def stuck(seed: int) -> Timing:
        machine = fresh(np.random.default_rng(seed), 1.0, 0.02, 0.05)
        for which in range(3):
            machine.opens(which)
        machine.opens = lambda which: 0.0
        return machine.measure()

    assert sum(not t.ci95[0] <= 1 <= t.ci95[1] for t in map(stuck, range(20))) > 10


@pytest.mark.slow
@pytest.mark.parametrize("truth", [0.9, 1.1, 3.0])
def test_a_difference_is_found(truth: float) -> None:
    """A tenth is claimed, by its right name, and the interval holds the truth."""
    timings = [fresh(np.random.default_rng(seed), truth, 0.02, 0.05).measure() for seed in range(40)]
    assert all(t.faster if truth > 1 else t.slower for t in timings)
    assert not any(t.slower if truth > 1 else t.faster for t in timings)
    assert sum(t.ci95[0] <= truth <= t.ci95[1] for t in timings) >= 34


def test_a_run_that_is_interrupted_moves_nothing() -> None:
    """Every fifth run takes thirty times as long, whichever file it is of."""
    count = [0]

    def runs(which: int) -> float:
        count[0] += 1
        return 1e-3 * (30 if count[0] % 5 == 0 else 1) / (2 if which == 1 else 1)

    timing = Machine(runs).measure()
    assert timing.speedup == pytest.approx(2.0)
    assert timing.faster


def test_drift_cancels() -> None:
    """The machine gets slower and slower; the ratio does not."""
    machine = Machine(lambda which: 0.0)
    machine.runs = lambda which: (1e-3 + machine.now / 1e3) / (2 if which == 1 else 1)
    timing = machine.measure()
    assert timing.speedup == pytest.approx(2.0, rel=1e-2)


def test_who_comes_after_whom_cancels() -> None:
    """Whatever follows contestant 0 is 8 % slower: two equal files still measure alike."""
    machine = Machine(lambda which: 0.0)
    machine.runs = lambda which: 1e-3 * (1.08 if machine.ran[-2:-1] == [0] else 1.0)
    timing = machine.measure()
    assert timing.ci95[0] <= 1 <= timing.ci95[1]
    assert not timing.faster
    assert not timing.slower


def test_the_control_stops_a_claim() -> None:
    """Where the original is as much faster than itself, the other file is not faster."""
    slow_first = (1.1, 1.0, 1.0)
    block = Block(*(tuple([factor] * 8) for factor in slow_first))
    timing = Timing((block,) * 12)
    assert timing.speedup == pytest.approx(1.1)
    assert timing.ci95[0] > 1
    assert not timing.faster


def test_the_ratio_is_the_quotient_of_the_times() -> None:
    """What is printed agrees: time, time, ratio."""
    timing = fresh(np.random.default_rng(0), 1.3, 0.1, 0.3).measure()
    assert timing.baseline_ms / timing.optimized_ms == pytest.approx(timing.speedup)
    first, second = (float(part.split()[0]) for part in speed_text(timing).split(" -> "))
    assert first / second == pytest.approx(timing.speedup, rel=1e-3)


def test_each_block_opens_all_anew_in_another_order() -> None:
    """All six orders of three, one after the other; each comes first as often in a block's rounds."""
    machine = Machine(lambda which: 1e-3)
    machine.measure(blocks=6)
    orders = [tuple(machine.opened[i : i + 3]) for i in range(0, 18, 3)]
    assert len(set(orders)) == 6
    assert all(sorted(order) == [0, 1, 2] for order in orders)


def test_the_time_is_kept() -> None:
    """Opening takes half a second, and 4 are there: two blocks of three, with the fewest rounds."""
    machine = Machine(lambda which: 0.01, lambda which: 0.5)
    timing = machine.measure(seconds=4.0)
    assert machine.now <= 4.0
    assert len(timing.blocks) == 2
    assert timing.runs == 2 * FEWEST_ROUNDS


def test_what_is_fast_has_many_blocks_and_rounds() -> None:
    """Within the time, up to a number beyond which nothing gets better."""
    timing = Machine(lambda which: 1e-5).measure(seconds=10.0)
    assert len(timing.blocks) == BLOCKS
    assert all(len(block.baseline_ms) in (FEWEST_ROUNDS, MOST_ROUNDS) for block in timing.blocks)


def test_one_block_claims_nothing() -> None:
    """With no time there is one block, a ratio, and no claim; the text says so."""
    timing = Machine(lambda which: 1.0 if which == 1 else 2.0).measure(seconds=0.0)
    assert timing.speedup == pytest.approx(2.0)
    assert timing.ci95 == (0.0, math.inf)
    assert not timing.faster
    assert "no claim" in speed_text(timing)


def test_large_files_are_open_one_at_a_time() -> None:
    """Each runs to its end before the next is opened."""
    machine = Machine(lambda which: 1e-3)
    machine.measure(together=False, blocks=1)
    assert len(machine.opened) == 3
    changes = sum(a != b for a, b in zip(machine.ran, machine.ran[1:], strict=False))
    assert changes == 2


@pytest.mark.parametrize("count", [2, 3, 12, 24])
def test_the_interval_covers_the_truth(count: int) -> None:
    """Student's interval over the blocks holds the true ratio in 95 of 100 experiments, however few."""
    rng = np.random.default_rng(0)
    intervals = [ratio_of(rng.lognormal(math.log(3.0), 0.1, count).tolist()).ci95 for _ in range(400)]
    assert 365 <= sum(low <= 3.0 <= high for low, high in intervals) <= 395


def test_noise_is_called_noise() -> None:
    """Sessions that differ by half leave a wide interval. The text says what helps."""
    wide = fresh(np.random.default_rng(0), 1.0, 0.5, 0.01).measure()
    assert wide.noisy
    assert "x: " not in speed_text(wide)
    assert "]: too noisy to tell; measure longer (--seconds) (" in speed_text(wide)
    assert not fresh(np.random.default_rng(0), 1.0, 0.01, 0.01).measure().noisy


@pytest.mark.slow
def test_real_sessions(tmp_path: Path) -> None:
    """Two files: one convolution against five of them."""
    x = torch.randn(1, 8, 32, 32)
    slow = stock_export(
        nn.Sequential(*[nn.Conv2d(8, 8, 3) for _ in range(5)]).eval(), (x,), tmp_path / "a.onnx"
    )
    fast = stock_export(nn.Sequential(nn.Conv2d(8, 8, 3)).eval(), (x,), tmp_path / "b.onnx")
    timing = measure_speed(slow, fast, [x.numpy()], seconds=2.0)
    assert timing.faster
    assert timing.speedup > 1.5
    data = timing.to_json()
    assert data.keys() >= {"baseline_ms", "optimized_ms", "speedup", "ci95", "control", "runs", "threads"}
    assert sum(map(len, data["samples_ms"]["baseline"])) == data["runs"]
    assert data["ci95"][0] <= data["speedup"] <= data["ci95"][1]
