"""Tells what is being done, and counts how long each stage takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = Callable[[str], None]


class Stages:
    """Names the stages of a run to ``progress``, and adds up the seconds of each.

    A stage within another one is named. Its time counts as that of the other.

    Example:
        >>> stages = Stages(print)
        >>> with stages.stage("exporting"):
        ...     stages.say("exporting the first part")
        exporting
        exporting the first part
        >>> list(stages.seconds)
        ['exporting']
    """

    def __init__(self, progress: Progress = lambda text: None) -> None:
        self.say = progress
        self.seconds: dict[str, float] = {}
        self._within = False

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """A stage. The time of a stage that comes again is added."""
        self.say(name)
        if self._within:
            yield
            return
        self._within = True
        start = time.perf_counter()
        try:
            yield
        finally:
            self._within = False
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
