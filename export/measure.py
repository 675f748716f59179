"""Is one ONNX file faster than another? Interleaved paired timing with a confidence interval.

This machine may be noisy and drift, so single times say little: the two sessions are run in turn, A B,
B A, A B, ..., each two pairs give one ratio, and what is reported is the median ratio with a bootstrap
interval over them. Both sessions are configured alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from export.session import Array, open_session, run

# An interval over fewer pairs is no ground for saying "faster".
FEWEST_PAIRS = 12
# Relative half-width of the 95 % interval at which a measurement is precise enough to stop ...
TARGET_HALF_WIDTH = 0.01
# ... and above which, when the time is up, the run is called noisy.
NOISY_HALF_WIDTH = 0.05
# Half of the pairs further apart than this, relative to the median ratio, are noise as well.
NOISY_SPREAD = 0.25


@dataclass(frozen=True)
class Timing:
    """Paired times of the original and the optimised file, in milliseconds, in the order they were taken."""

    baseline_ms: tuple[float, ...]
    optimized_ms: tuple[float, ...]
    ci95: tuple[float, float]
    threads: int

    @property
    def speedup(self) -> float:
        """Median over the paired runs of baseline / optimised."""
        return float(np.median(_ratios(self.baseline_ms, self.optimized_ms)))

    @property
    def faster(self) -> bool:
        """The whole interval lies above 1, and rests on enough pairs to be one."""
        return self.ci95[0] > 1.0 and len(self.baseline_ms) >= FEWEST_PAIRS

    @property
    def noisy(self) -> bool:
        """The interval is too wide to tell a few per cent, or the pairs disagree too much to trust it."""
        ratios = _ratios(self.baseline_ms, self.optimized_ms)
        spread = _iqr(ratios) / float(np.median(ratios))
        return _half_width(self.ci95) > NOISY_HALF_WIDTH or spread > NOISY_SPREAD

    def to_json(self) -> dict[str, Any]:
        """The "speed" object of the JSON contract, with the raw samples."""
        return {
            "baseline_ms": float(np.median(self.baseline_ms)),
            "optimized_ms": float(np.median(self.optimized_ms)),
            "speedup": self.speedup,
            "ci95": list(self.ci95),
            "runs": len(self.baseline_ms),
            "threads": self.threads,
            "faster": self.faster,
            "noisy": self.noisy,
            "baseline_iqr_ms": _iqr(self.baseline_ms),
            "optimized_iqr_ms": _iqr(self.optimized_ms),
            "samples_ms": {
                "baseline": list(self.baseline_ms),
                "optimized": list(self.optimized_ms),
            },
        }


def measure_speed(
    baseline: Path | str,
    optimized: Path | str,
    inputs: Sequence[Array],
    *,
    threads: int = 1,
    min_pairs: int = 100,
    max_pairs: int = 1000,
    seconds: float = 10.0,
    progress: Callable[[int, float], None] | None = None,
) -> Timing:
    """Time two ONNX files against each other on the same inputs.

    Args:
        baseline, optimized: the files; ``speedup`` is the first's time over the second's.
        inputs: arrays in the order of the files' inputs.
        threads: intra-operator threads of both sessions.
        min_pairs: pairs measured in any case.
        max_pairs, seconds: where to stop if the interval does not get within 1 % of its middle before.
        progress: called with the number of pairs and the seconds spent.

    Raises:
        ExportError: onnxruntime does not accept a file or cannot run it.
    """
    sessions = [open_session(Path(path), threads=threads) for path in (baseline, optimized)]
    return time_pairs(
        stopwatch(*(partial(run, session, inputs) for session in sessions)),
        threads=threads,
        min_pairs=min_pairs,
        max_pairs=max_pairs,
        seconds=seconds,
        progress=progress,
    )


def stopwatch(*runs: Callable[[], Any]) -> Callable[[int], float]:
    """What calls one of ``runs`` by its number, and gives the milliseconds that it took."""

    def timed(which: int) -> float:
        start = time.perf_counter()
        runs[which]()
        return (time.perf_counter() - start) * 1e3

    return timed


def time_pairs(
    timed: Callable[[int], float],
    *,
    threads: int,
    min_pairs: int,
    max_pairs: int,
    seconds: float,
    progress: Callable[[int, float], None] | None = None,
) -> Timing:
    """Interleave ``timed(0)`` and ``timed(1)``, which run A and B and return milliseconds."""
    for _ in range(3):  # the first runs allocate, pack weights and fill caches
        timed(0), timed(1)
    times: tuple[list[float], list[float]] = ([], [])
    start, next_check = time.perf_counter(), min_pairs
    while len(times[0]) < max_pairs:
        pairs = len(times[0])
        spent = time.perf_counter() - start
        if progress:
            progress(pairs, spent)
        if pairs % 2:
            pass  # a couple of pairs is measured to its end
        elif pairs >= next_check:
            if spent > seconds or _half_width(bootstrap_ci(*times)) < TARGET_HALF_WIDTH:
                break
            next_check = pairs + max(min_pairs, pairs // 2)
        elif pairs >= min_pairs and spent > seconds:
            break
        # Swapping the order in every other pair cancels what the first run does to the second.
        for which in (0, 1) if pairs % 2 == 0 else (1, 0):
            times[which].append(float(timed(which)))
    return Timing(tuple(times[0]), tuple(times[1]), bootstrap_ci(*times), threads)


def bootstrap_ci(
    baseline_ms: Sequence[float], optimized_ms: Sequence[float], resamples: int = 2000
) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the median ratio over the pairs (Efron 1979); seeded.

    Example:
        >>> bootstrap_ci([2.0] * 30, [1.0] * 30)
        (2.0, 2.0)
    """
    ratios = _ratios(baseline_ms, optimized_ms)
    rng = np.random.default_rng(0)
    medians = np.median(rng.choice(ratios, (resamples, len(ratios))), axis=1)
    low, high = np.percentile(medians, (2.5, 97.5))
    return float(low), float(high)


def _ratios(baseline_ms: Sequence[float], optimized_ms: Sequence[float]) -> np.ndarray:
    """One ratio for each A B, B A couple: the geometric mean of its two, in which their order cancels.

    The median of single ratios would not do: with an effect of the order they lie in two heaps, and their
    median in one of them or in the gap between.
    """
    logs = np.log(np.divide(baseline_ms, optimized_ms))
    couples = len(logs) // 2
    return np.exp(logs[: 2 * couples].reshape(couples, 2).mean(1)) if couples else np.exp(logs)


def _half_width(ci: tuple[float, float]) -> float:
    return (ci[1] - ci[0]) / (ci[0] + ci[1])


def _iqr(samples: Sequence[float] | np.ndarray) -> float:
    low, high = np.percentile(samples, (25, 75))
    return float(high - low)
