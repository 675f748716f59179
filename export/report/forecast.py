"""How much of a run is done, and how long the rest takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

# A model may be so much smaller or larger than the expected seconds are made for.
_SLOWEST, _FASTEST = 30.0, 0.25


@dataclass(frozen=True)
class Expected:
    """A stage that a run will have.

    Args:
        name: how the name of the stage begins.
        seconds: how long it takes.
        limited: it ends by the clock, after ``seconds``. Otherwise the model decides how long it takes.
    """

    name: str
    seconds: float
    limited: bool = False


class Forecast:
    """Follows a run through its stages.

    If the stages so far took twice as long as expected, the other ones that the model decides will, too. What
    is done never becomes less.

    Args:
        expected: the stages in their order. A run may leave some out, and may have others.
        clock: gives seconds.

    Example:
        >>> now = iter([0.0, 0.0, 2.0, 2.0, 2.0])
        >>> forecast = Forecast([Expected("loading", 1), Expected("writing", 1)], lambda: next(now))
        >>> forecast.begin("loading")
        >>> forecast.begin("writing")
        >>> forecast.left(), forecast.done()
        (2.0, 0.5)
    """

    def __init__(self, expected: Sequence[Expected], clock: Callable[[], float] = time.perf_counter) -> None:
        self.expected, self.clock = list(expected), clock
        self._start = self._begun = clock()
        self._place = -1
        self._took = self._assumed = 0.0
        self._done = 0.0

    def begin(self, name: str) -> None:
        """A stage begins. One that is not expected, or not here, counts as part of the one before."""
        rest = range(self._place + 1, len(self.expected))
        place = next((i for i in rest if name.startswith(self.expected[i].name)), None)
        if place is None:
            return
        now = self.clock()
        if self._place >= 0 and not self.expected[self._place].limited:
            self._took += now - self._begun
            self._assumed += self.expected[self._place].seconds
        self._place, self._begun = place, now

    def left(self) -> float:
        """Seconds until the end."""
        return self._left(self.clock())

    def done(self) -> float:
        """The part of the run that is over, from 0 to 1."""
        now = self.clock()
        spent, left = now - self._start, self._left(now)
        self._done = max(self._done, spent / (spent + left) if spent + left > 0 else 0.0)
        return self._done

    def _left(self, now: float) -> float:
        pace = min(max(self._took / self._assumed, _FASTEST), _SLOWEST) if self._assumed else 1.0
        rest = [one.seconds * (1.0 if one.limited else pace) for one in self.expected[max(self._place, 0) :]]
        spent = now - self._begun if self._place >= 0 else 0.0
        return max(rest[0] - spent, 0.0) + sum(rest[1:]) if rest else 0.0
