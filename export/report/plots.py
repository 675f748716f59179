"""The numbers of the plots of a report, in units of the page: the timings of all blocks, and bars."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from export.speed import Timing
from fx_passes.timing.blocks import Ratio, typical

# The drawing area of a plot.
LEFT, WIDTH, ROW = 10.0, 620.0, 64.0
_TICKS = (
    *(0.1, 0.2, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 1, 1.02, 1.05, 1.1, 1.2, 1.3, 1.5, 1.7),
    *(2, 2.5, 3, 4, 5, 7, 10, 15, 20, 30, 50, 70, 100, 200, 500),
)
_APART = 44.0


@dataclass(frozen=True)
class Row:
    """The ratios of one pair of files: a dot for each block, the typical ratio and its interval."""

    title: str
    top: float
    dots: tuple[tuple[float, float], ...]
    middle: float
    interval: tuple[float, float] | None
    said: str


@dataclass(frozen=True)
class Plot:
    """Two rows over one logarithmic axis of ratios."""

    rows: tuple[Row, ...]
    ticks: tuple[tuple[float, str], ...]
    one: float
    width: float
    height: float
    alt: str


def plot_of(timing: Timing) -> Plot:
    """The original over the optimized file, and the original over itself, block by block."""
    ratios = [typical(b.baseline_ms) / typical(b.optimized_ms) for b in timing.blocks]
    control = [typical(b.baseline_ms) / typical(b.control_ms) for b in timing.blocks]
    pairs = (("original / optimized", ratios, timing.ratio), ("original / itself", control, timing.control))
    ends = [end for _, _, ratio in pairs for end in (*ratio.ci95, ratio.value) if 0 < end < math.inf]
    low, high = min(*ratios, *control, *ends, 1.0), max(*ratios, *control, *ends, 1.0)
    room = max(0.04 * math.log(high / low), 0.01)
    start, span = math.log(low) - room, math.log(high / low) + 2 * room

    def x(ratio: float) -> float:
        return round(LEFT + (WIDTH - 2 * LEFT) * (math.log(ratio) - start) / span, 1)

    rows = []
    for number, (title, values, ratio) in enumerate(pairs):
        top = 22 + number * (ROW + 26)
        step = (ROW - 24) / max(len(values), 1)
        dots = tuple((x(value), round(top + 8 + (i + 0.5) * step, 1)) for i, value in enumerate(values))
        interval = (x(ratio.ci95[0]), x(ratio.ci95[1])) if timing.enough else None
        rows.append(Row(title, top, dots, x(ratio.value), interval, ratio_text(ratio, timing.enough)))
    ticks = _ticks(low, high, x)
    alt = f"Ratios of {len(ratios)} blocks. " + ". ".join(f"{row.title}: {row.said}" for row in rows)
    return Plot(tuple(rows), ticks, x(1.0), WIDTH, 22 + 2 * (ROW + 26) + 8, alt)


def _ticks(low: float, high: float, x: object) -> tuple[tuple[float, str], ...]:
    """Round ratios within the axis that do not touch each other. 1 is always among them."""
    assert callable(x)
    found = [1.0]
    for tick in sorted((t for t in _TICKS if low <= t <= high), key=lambda t: abs(math.log(t))):
        if all(abs(x(tick) - x(other)) >= _APART for other in found):
            found.append(tick)
    return tuple((x(tick), f"{tick:g}x") for tick in sorted(found))


def ratio_text(ratio: Ratio, enough: bool) -> str:
    """A ratio, with its interval where it has one."""
    low, high = ratio.ci95
    return f"{ratio.value:.3f}x" + (f" [{low:.3f}, {high:.3f}]" if enough else " (one block, no interval)")


@dataclass(frozen=True)
class Pair:
    """A quantity before and after, and both as shares of the largest of the table, in per cent."""

    name: str
    before: float
    after: float
    shares: tuple[float, float]


def pairs_of(before: Mapping[str, float], after: Mapping[str, float]) -> list[Pair]:
    """One pair for each name in one of the two, the largest first."""
    names = sorted({*before, *after}, key=lambda name: -max(before.get(name, 0), after.get(name, 0)))
    largest = max([*before.values(), *after.values()], default=0) or 1
    found = []
    for name in names:
        values = before.get(name, 0.0), after.get(name, 0.0)
        shares = [round(100 * value / largest, 1) for value in values]
        found.append(Pair(name, *values, (shares[0], shares[1])))
    return found


def largest_first(sizes: Mapping[str, int], shown: int = 10) -> Sequence[tuple[str, int]]:
    """The largest entries, and the others as one."""
    listed = sorted(sizes.items(), key=lambda item: -item[1])
    rest = listed[shown:]
    more = [(f"{len(rest)} others", sum(size for _, size in rest))] if rest else []
    return [*listed[:shown], *more]
