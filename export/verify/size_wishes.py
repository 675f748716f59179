"""The sizes at which lowered files may go wrong: what to try for an open size, best first.

A lowering may compute several neighbours at once, in 8, 16 or 32 phases. So there are sizes with a rest, odd
and even ones, primes, sizes smaller than one step, and sizes of several steps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import sympy

# How far from a wanted size to look for one that the model takes.
_REACH = 64
# Models that halve a picture several times take only multiples of it. So many more of them are tried.
_STEP, _STEPS = 32, 16
# Every number of phases is a multiple of it.
_PHASES = 8
# Large sizes are at least so large, where that is cheap.
_LARGE = 67


class Axis(NamedTuple):
    """An open size: its value in the example, the bounds of the model, and the largest that is cheap.

    ``high`` is None if the model has no upper bound. ``size <= most``.
    """

    size: int
    low: int
    high: int | None
    most: int

    @property
    def top(self) -> int:
        """The largest size to try."""
        return self.most if self.high is None else min(self.most, self.high)


Wish = Callable[[Axis], list[int]]


def batch_from(first: int, axis: Axis) -> list[int]:
    """Batches from ``first``, or from the smallest, upwards; not that of the example. A batch may be larger
    than what is cheap: there are few."""
    start = max(first, axis.low)
    end = start + _REACH if axis.high is None else min(start + _REACH, axis.high + 1)
    return [n for n in range(start, end) if n != axis.size]


def _upwards(axis: Axis) -> list[int]:
    """Sizes from the smallest upwards."""
    return _and_steps(axis, list(range(axis.low, min(axis.low + _REACH, axis.top + 1))))


def _large(axis: Axis) -> list[int]:
    """Sizes from twice that of the example, and from ``_LARGE`` at least, downwards."""
    top = min(max(2 * axis.size, _LARGE), axis.top)
    return _and_steps(axis, list(range(top, max(axis.low, top - _REACH) - 1, -1)))


def _near(axis: Axis, about: int, kind: Callable[[int], bool]) -> list[int]:
    """Sizes of a kind near ``about``, the nearest first; then those of no kind."""
    about = min(max(about, axis.low), axis.top)
    pool = range(max(axis.low, about - _REACH), min(axis.top, about + _REACH) + 1)
    return _and_steps(axis, sorted(pool, key=lambda n: (not kind(n), abs(n - about), n)))


def _and_steps(axis: Axis, sizes: list[int]) -> list[int]:
    """``sizes``, and further multiples of ``_STEP``, the nearest first."""
    first = max(-(-axis.low // _STEP), sizes[0] // _STEP - _STEPS)
    last = min(axis.top // _STEP, sizes[0] // _STEP + _STEPS)
    steps = {_STEP * n for n in range(first, last + 1)} - set(sizes)
    return sizes + sorted(steps, key=lambda n: abs(n - sizes[0]))


AT_THE_EDGE = "smallest sizes"
WISHES: dict[str, Wish] = {
    AT_THE_EDGE: _upwards,
    "small sizes": _upwards,
    "prime sizes": lambda axis: _near(axis, axis.size // 2, sympy.isprime),
    "odd sizes": lambda axis: _near(axis, axis.size, lambda n: n % 2 == 1),
    "even sizes": lambda axis: _near(axis, axis.size, lambda n: n % 2 == 0),
    "sizes between phases": lambda axis: _near(axis, axis.size * 3 // 2, lambda n: n % _PHASES > 0),
    "large sizes": _large,
}
