"""Tells what is being done, and counts how long each stage takes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = Callable[[str], None]

log = logging.getLogger(__name__)


class Stages:
    """Names the stages of a run to ``progress``, and adds up the seconds of each.

    A stage within another one is named. Its time counts as that of the other. The steps of a stage are
    logged: there may be hundreds.

    Example:
        >>> stages = Stages(print)
        >>> with stages.stage("exporting"):
        ...     stages.step("the first part")
        exporting
        >>> list(stages.seconds)
        ['exporting']
    """

    def __init__(self, progress: Progress = lambda text: None) -> None:
        self.progress = progress
        self.seconds: dict[str, float] = {}
        self._within = False

    def step(self, text: str) -> None:
        """A step of a stage begins."""
        log.info("%s", text)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """A stage. The time of a stage that comes again is added."""
        self.progress(name)
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
