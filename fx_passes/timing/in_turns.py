"""The time of each of several contestants. They run in turns, and those that are clearly slower drop out."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from fx_passes.timing.blocks import geometric_mean, time_blocks, typical

# Blocks in which the contestants are timed, and how much slower than the fastest
# one may be after each to go on.
_DROP = (2.0, 1.4, 1.25, 1.25, 1.25, 1.25)
_ROUNDS, _SAMPLE_MS = 8, 0.3

Runs = Callable[[], Any]


def time_in_turns(
    openers: Mapping[str, Callable[[], Runs]],
    seconds: float,
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Milliseconds of one run of each contestant, by name.

    Args:
        openers: each opens its contestant again, and returns a function that runs it once. ``expand`` never
            drops out.
        seconds: when to stop. Each contestant is timed in one block in any case.
        clock: gives seconds.
    """
    repeats: dict[str, int] = {}

    def contestant(name: str) -> Runs:
        run_once = openers[name]()
        if name not in repeats:
            repeats[name] = _repeats(run_once, clock)
        return lambda: [run_once() for _ in range(repeats[name])]

    found: dict[str, list[float]] = {name: [] for name in openers}
    end, alive = clock() + seconds, list(openers)
    for number, drop in enumerate(_DROP):
        left = end - clock()
        if number and left <= 0:
            break
        share = left / (len(_DROP) - number)
        opening = [partial(contestant, name) for name in alive]
        (block,) = time_blocks(
            opening, seconds=share, blocks=1, fewest_rounds=3, most_rounds=_ROUNDS, clock=clock
        )
        for name, times in zip(alive, block, strict=True):
            found[name].append(typical(times) / repeats[name])
        alive = _go_on(alive, found, drop)
    return {name: geometric_mean(times) for name, times in found.items()}


def _repeats(run_once: Runs, clock: Callable[[], float]) -> int:
    """How often a contestant runs for one sample: as often as a clock needs to measure it."""
    run_once()
    start = clock()
    run_once()
    return max(1, round(_SAMPLE_MS / max((clock() - start) * 1e3, 1e-3)))


def _go_on(alive: Sequence[str], found: Mapping[str, Sequence[float]], drop: float) -> list[str]:
    best = min(geometric_mean(found[name]) for name in alive)
    return [name for name in alive if name == "expand" or geometric_mean(found[name]) <= drop * best]
