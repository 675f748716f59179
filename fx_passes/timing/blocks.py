"""Blocks of fresh contestants that run in turns, and their typical times.

A block opens its contestants again, each time in another order, and runs them in turns. Blocks are
independent of each other; the runs within a block are not. So an interval is over blocks.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

# Blocks that are planned.
BLOCKS = 24
# Runs of each contestant in a block. Fewer give no lower quartile, more do not improve it.
FEWEST_ROUNDS, MOST_ROUNDS = 5, 60
# A block of more rounds than the fewest takes no longer. An interval is over blocks, not over runs.
BLOCK_SECONDS = 0.1

# Two-sided 95 % quantiles of Student's t for 1, 2, ... degrees of freedom.
_T95 = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179]
_T95 += [2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069]


@dataclass(frozen=True)
class Ratio:
    """A typical ratio over the blocks, with its 95 % interval.

    Example:
        >>> ratio_of([2.0, 2.0, 2.0])
        Ratio(value=2.0, ci95=(2.0, 2.0))
    """

    value: float
    ci95: tuple[float, float]


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
        contestants: each opens itself again, and returns a function that runs it once.
        seconds: when to stop. One block is measured in any case.
        blocks: the largest number of blocks.
        fewest_rounds, most_rounds: how often each contestant runs in a block.
        together: all contestants of a block are open at once and run in turns; otherwise one after the other.
        clock: gives seconds.
        progress: called after each block with the number of blocks and the seconds spent.

    The time for opening decides how many runs a block has: as many as let the planned blocks fit, and no more
    than ``BLOCK_SECONDS`` take. Nobody looks at the ratios to choose the number of blocks. An interval that
    stops when it looks good means nothing.
    """
    measured: list[tuple[tuple[float, ...], ...]] = []
    start, longest, opening, one_round = clock(), 0.0, 0.0, math.inf
    for number in range(blocks):
        begun = clock()
        if measured and begun - start + longest > seconds:
            break
        left = (seconds - (begun - start)) / (blocks - number) - opening
        wanted = min(left, BLOCK_SECONDS) / one_round
        rounds = round(min(max(wanted, fewest_rounds), most_rounds))
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
    """Run each once a round, and add the milliseconds to ``times``."""
    for run_once in runs.values():  # the first run allocates and fills caches
        run_once()
    for number in range(rounds):
        for which in _turn(number, list(runs)):
            start = clock()
            runs[which]()
            times[which].append((clock() - start) * 1e3)


def _turn(number: int, order: Sequence[int]) -> list[int]:
    """``order``, beginning elsewhere each time, forwards and backwards: each comes first, and each follows
    each."""
    shift = number // 2 % len(order)
    turned = [*order[shift:], *order[:shift]]
    return turned if number % 2 == 0 else turned[::-1]


def typical(times: Sequence[float]) -> float:
    """The lower quartile. Other work on the machine makes times longer, never shorter."""
    return float(np.quantile(times, 0.25))


def ratio_of(ratios: Sequence[float]) -> Ratio:
    """The geometric mean of the ratios of the blocks, with Student's 95 % interval over their logarithms."""
    logs = np.log(ratios)
    middle = float(logs.mean())
    if len(logs) < 2:
        return Ratio(math.exp(middle), (0.0, math.inf))
    quantile = _T95[min(len(logs) - 1, len(_T95)) - 1]
    half = quantile * float(logs.std(ddof=1)) / math.sqrt(len(logs))
    return Ratio(math.exp(middle), (math.exp(middle - half), math.exp(middle + half)))


def geometric_mean(values: Sequence[float]) -> float:
    """The mean of quantities whose ratios matter."""
    return float(np.exp(np.log(values).mean()))
