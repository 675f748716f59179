"""Is one ONNX file faster than another? Blocks of fresh sessions, and the control of a file against itself.

Two sessions of one file differ: by where their memory lies, by what was packed when. So one pair of sessions
says little, however often it runs. A block opens three sessions anew, the original, the optimised file and
the original once more, in another order each time; then they run in turns (files too large to be open at
once: one after the other). The typical time of a session is
the lower quartile of its runs, which a run that was interrupted cannot move. A block gives one ratio,
original over optimised, and one control, original over original. The interval is Student's t over the
logarithms of the blocks' ratios, as the blocks are independent and their runs are not.

"Faster" and "slower" are claims: the interval of the ratio has to lie beyond 1 and beyond the interval of the
control, which shows what this machine makes of no difference at all.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from export.onnx_file import is_large_file
from export.session import Array, open_session, run

# Blocks that are planned, and the fewest that a claim may rest on. With two, Student's t is 12.7: what is
# claimed then is far from 1.
BLOCKS, FEWEST_BLOCKS = 24, 2
# Runs of each session in a block: the lower quartile of fewer is no quartile; more make it no better.
FEWEST_ROUNDS, MOST_ROUNDS = 5, 60
# A measurement is called noisy where half of its interval is wider than this, relative to the ratio.
NOISY_HALF_WIDTH = 0.05

# Two-sided 95 % quantiles of Student's t for 1, 2, ... degrees of freedom.
_T95 = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179]
_T95 += [2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069]


@dataclass(frozen=True)
class Block:
    """Milliseconds of the runs of three fresh sessions: original, optimised, and the original again."""

    baseline_ms: tuple[float, ...]
    optimized_ms: tuple[float, ...]
    control_ms: tuple[float, ...]


@dataclass(frozen=True)
class Ratio:
    """A typical ratio over the blocks with its 95 % interval.

    Example:
        >>> ratio_of([2.0, 2.0, 2.0])
        Ratio(value=2.0, ci95=(2.0, 2.0))
    """

    value: float
    ci95: tuple[float, float]


@dataclass(frozen=True)
class Timing:
    """What was measured of two files, block by block, and what it allows one to say."""

    blocks: tuple[Block, ...]
    threads: int

    @property
    def baseline_ms(self) -> float:
        """Typical time of the original: the geometric mean over the blocks of its lower quartile."""
        return _geometric_mean([typical(block.baseline_ms) for block in self.blocks])

    @property
    def optimized_ms(self) -> float:
        """Typical time of the optimised file, so that ``speedup`` is the quotient of the two."""
        return _geometric_mean([typical(block.optimized_ms) for block in self.blocks])

    @property
    def ratio(self) -> Ratio:
        """The original's time over the optimised file's."""
        return ratio_of([typical(b.baseline_ms) / typical(b.optimized_ms) for b in self.blocks])

    @property
    def control(self) -> Ratio:
        """The original's time over that of the original: what is measured where there is no difference."""
        return ratio_of([typical(b.baseline_ms) / typical(b.control_ms) for b in self.blocks])

    @property
    def speedup(self) -> float:
        """The typical ratio over the blocks; above 1 the optimised file is faster."""
        return self.ratio.value

    @property
    def ci95(self) -> tuple[float, float]:
        """The 95 % interval of ``speedup``."""
        return self.ratio.ci95

    @property
    def runs(self) -> int:
        """Timed runs of each file."""
        return sum(len(block.baseline_ms) for block in self.blocks)

    @property
    def enough(self) -> bool:
        """Whether there are enough blocks for a claim."""
        return len(self.blocks) >= FEWEST_BLOCKS

    @property
    def faster(self) -> bool:
        """The whole interval lies above 1 and above what the control shows."""
        return self.enough and self.ci95[0] > max(1.0, self.control.ci95[1])

    @property
    def slower(self) -> bool:
        """The whole interval lies below 1 and below what the control shows."""
        return self.enough and self.ci95[1] < min(1.0, self.control.ci95[0])

    @property
    def noisy(self) -> bool:
        """The interval is too wide to tell a few per cent."""
        low, high = self.ci95
        return (high - low) / (high + low) > NOISY_HALF_WIDTH

    def to_json(self) -> dict[str, Any]:
        """The "speed" object of the JSON contract, with the raw samples."""
        return {
            "baseline_ms": self.baseline_ms,
            "optimized_ms": self.optimized_ms,
            "speedup": self.speedup,
            "ci95": list(self.ci95),
            "control": {"speedup": self.control.value, "ci95": list(self.control.ci95)},
            "blocks": len(self.blocks),
            "runs": self.runs,
            "threads": self.threads,
            "faster": self.faster,
            "slower": self.slower,
            "noisy": self.noisy,
            "samples_ms": {
                "baseline": [list(block.baseline_ms) for block in self.blocks],
                "optimized": [list(block.optimized_ms) for block in self.blocks],
                "control": [list(block.control_ms) for block in self.blocks],
            },
        }


def measure_speed(
    baseline: Path | str,
    optimized: Path | str,
    inputs: Sequence[Array],
    *,
    threads: int = 1,
    seconds: float = 10.0,
    progress: Callable[[int, float], None] | None = None,
) -> Timing:
    """Time two ONNX files against each other, and the first against itself, on the same inputs.

    Args:
        baseline, optimized: the files; ``speedup`` is the first's time over the second's.
        inputs: arrays in the order of the files' inputs.
        threads: intra-operator threads of all sessions.
        seconds: how long to measure at most, the opening of sessions included. One block is measured in any
            case; a single one gives a ratio, and allows no claim.
        progress: called with the number of blocks measured and the seconds spent.

    Raises:
        ExportError: onnxruntime does not accept a file or cannot run it.
    """
    files = [Path(baseline), Path(optimized), Path(baseline)]
    blocks = time_blocks(
        [partial(opened, file, inputs, threads) for file in files],
        seconds=seconds,
        together=not any(is_large_file(file) for file in files),
        progress=progress,
    )
    return Timing(tuple(Block(*block) for block in blocks), threads)


def opened(file: Path, inputs: Sequence[Array], threads: int) -> Callable[[], Any]:
    """What runs ``file`` in a session of its own."""
    return partial(run, open_session(file, threads=threads), inputs)


def time_blocks(
    contestants: Sequence[Callable[[], Callable[[], Any]]],
    *,
    seconds: float,
    blocks: int = BLOCKS,
    fewest_rounds: int = FEWEST_ROUNDS,
    most_rounds: int = MOST_ROUNDS,
    together: bool = True,
    clock: Callable[[], float] = time.perf_counter,
    progress: Callable[[int, float], None] | None = None,
) -> list[tuple[tuple[float, ...], ...]]:
    """Milliseconds of the runs of each contestant, block by block.

    Args:
        contestants: each opens itself anew, and gives what runs it once.
        seconds: where to stop; one block is measured in any case.
        blocks: how many to measure at most.
        fewest_rounds, most_rounds: how often each contestant runs in a block.
        together: all contestants of a block are open at once and run in turns; otherwise one after the other.
        clock: gives seconds.

    How many runs a block has follows from what opening takes: as many as let the planned blocks fit. The
    number of blocks is not chosen by looking at the ratios: an interval that stops where it looks good is
    none.
    """
    measured: list[tuple[tuple[float, ...], ...]] = []
    start, longest, opening, one_round = clock(), 0.0, 0.0, math.inf
    for number in range(blocks):
        begun = clock()
        if measured and begun - start + longest > seconds:
            break
        left = (seconds - (begun - start)) / (blocks - number) - opening
        rounds = round(min(max(left / one_round, fewest_rounds), most_rounds))
        times: list[list[float]] = [[] for _ in contestants]
        order = _turn(number, range(len(contestants)))
        for group in [order] if together else [[which] for which in order]:
            _run_in_turns({which: contestants[which]() for which in group}, rounds, times, clock)
        measured.append(tuple(tuple(runs) for runs in times))
        longest = max(longest, clock() - begun)
        one_round = max(sum(map(sum, times)) / 1e3 / rounds, 1e-9)
        opening = clock() - begun - rounds * one_round
        if progress:
            progress(len(measured), clock() - start)
    return measured


def _run_in_turns(
    runs: dict[int, Callable[[], Any]], rounds: int, times: list[list[float]], clock: Callable[[], float]
) -> None:
    """Run each once a round, and note the milliseconds."""
    for run_once in runs.values():  # the first run allocates and fills caches
        run_once()
    for number in range(rounds):
        for which in _turn(number, list(runs)):
            start = clock()
            runs[which]()
            times[which].append((clock() - start) * 1e3)


def _turn(number: int, order: Sequence[int]) -> list[int]:
    """``order`` begun elsewhere each time, forwards and backwards: each comes first, and follows each."""
    shift = number // 2 % len(order)
    turned = [*order[shift:], *order[:shift]]
    return turned if number % 2 == 0 else turned[::-1]


def typical(times: Sequence[float]) -> float:
    """The lower quartile: what else a machine does makes times longer, never shorter."""
    return float(np.quantile(times, 0.25))


def ratio_of(ratios: Sequence[float]) -> Ratio:
    """The geometric mean of the blocks' ratios with Student's 95 % interval over their logarithms."""
    logs = np.log(ratios)
    middle = float(logs.mean())
    if len(logs) < 2:
        return Ratio(math.exp(middle), (0.0, math.inf))
    quantile = _T95[min(len(logs) - 1, len(_T95)) - 1]
    half = quantile * float(logs.std(ddof=1)) / math.sqrt(len(logs))
    return Ratio(math.exp(middle), (math.exp(middle - half), math.exp(middle + half)))


def _geometric_mean(values: Sequence[float]) -> float:
    return float(np.exp(np.log(values).mean()))
