"""Paired timing: what it says about times whose truth is known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from export import measure_speed
from export.measure import Timing, bootstrap_ci, time_pairs
from export.onnx_export import stock_export


def timed_by(baseline: Callable[[int], float], optimized: Callable[[int], float]) -> Callable[[int], float]:
    """A stand-in for two sessions: milliseconds by how often each has run."""
    runs = [0, 0]

    def timed(which: int) -> float:
        runs[which] += 1
        return (baseline, optimized)[which](runs[which])

    return timed


def measure(timed: Callable[[int], float], **more: float) -> Timing:
    arguments = {"threads": 1, "min_pairs": 30, "max_pairs": 300, "seconds": 5.0, **more}
    return time_pairs(timed, **arguments)


def test_a_clear_ratio_is_found_through_drift() -> None:
    """The machine gets five times slower on the way; the ratio does not."""
    timing = measure(timed_by(lambda n: 2.0 * (1 + n / 10), lambda n: 1.0 * (1 + n / 10)))
    assert timing.speedup == pytest.approx(2.0)
    assert timing.faster
    assert not timing.noisy
    assert len(timing.baseline_ms) == len(timing.optimized_ms) == 30


def test_equal_times_are_not_called_faster() -> None:
    """Noise around a ratio of 1: the interval holds 1, or is at its edge in 5 runs of 100."""
    called = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        timing = measure(timed_by(lambda n: rng.normal(1, 0.05), lambda n: rng.normal(1, 0.05)), max_pairs=60)  # noqa: B023
        called += timing.faster
    assert called <= 8


def test_a_slower_file_is_not_called_faster() -> None:
    """A loss is a ratio below 1."""
    timing = measure(timed_by(lambda n: 1.0, lambda n: 1.25))
    assert timing.speedup == pytest.approx(0.8)
    assert not timing.faster


def test_noise_is_called_noise() -> None:
    """Times that jump by a factor of ten leave a wide interval."""
    rng = np.random.default_rng(0)
    timing = measure(
        timed_by(lambda n: rng.choice([1.0, 10.0]), lambda n: rng.choice([1.0, 10.0])), max_pairs=60
    )
    assert timing.noisy
    assert len(timing.baseline_ms) == 60


def test_the_order_alternates() -> None:
    """A B, B A, A B: what the first run does to the second cancels."""
    order: list[int] = []

    def timed(which: int) -> float:
        order.append(which)
        return 1.0

    measure(timed)
    assert order[6:14] == [0, 1, 1, 0, 0, 1, 1, 0]


def test_time_limit_keeps_the_minimum() -> None:
    """With no time at all the minimum number of pairs is still measured."""
    rng = np.random.default_rng(0)
    timing = measure(timed_by(lambda n: rng.random() + 1, lambda n: rng.random() + 1), seconds=0.0)
    assert len(timing.baseline_ms) == 30


def test_bootstrap_covers_the_truth() -> None:
    """The 95 % interval of the median ratio holds the true ratio in about 95 of 100 experiments."""
    held = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        low, high = bootstrap_ci(rng.lognormal(np.log(3.0), 0.1, 41), rng.lognormal(0.0, 0.1, 41))
        held += low <= 3.0 <= high
    assert held >= 88


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
    assert data.keys() >= {"baseline_ms", "optimized_ms", "speedup", "ci95", "runs", "threads"}
    assert len(data["samples_ms"]["baseline"]) == data["runs"]
    assert data["ci95"][0] <= data["speedup"] <= data["ci95"][1]


def test_an_effect_of_the_order_cancels() -> None:
    """Whoever runs second is 8 % slower: the ratio of two equal files is still 1."""
    rng, runs = np.random.default_rng(0), [0]

    def timed(which: int) -> float:
        runs[0] += 1
        return (1.0 + 0.08 * (runs[0] % 2 == 0)) * rng.normal(1, 0.01)

    timing = measure(timed, max_pairs=100)
    assert timing.speedup == pytest.approx(1.0, abs=0.01)
    assert timing.ci95[1] - timing.ci95[0] < 0.02
    assert not timing.faster


def test_a_few_pairs_are_no_ground_for_faster() -> None:
    """Two pairs give an interval of no width, which says nothing."""
    timing = measure(timed_by(lambda n: 2.0, lambda n: 1.0), min_pairs=2, max_pairs=2)
    assert timing.speedup == 2.0
    assert not timing.faster
