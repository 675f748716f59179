"""What a person sees while a command runs: one bar over all stages, or a line for each stage."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout

import click
from rich.console import Console
from rich.progress import Progress as Bar
from rich.progress import ProgressColumn, Task
from rich.progress_bar import ProgressBar
from rich.table import Column
from rich.text import Text

from export.report.forecast import Expected, Forecast
from export.stages import Progress

# The thread that draws must not disturb what is timed.
_PER_SECOND = 2


@contextmanager
def progress(expected: Sequence[Expected], *, quiet: bool = False, lines: bool = False) -> Iterator[Progress]:
    """Gives the function that is called with each stage.

    On a terminal there is one bar on standard error; it goes away at the end. Elsewhere each stage is one
    line there. What the model prints while it is loaded or run is not our output: it goes there as well.

    Args:
        quiet: nothing is shown.
        lines: no bar on a terminal either, as other lines would break it.
    """
    if quiet:
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
            yield lambda stage: None
        return
    console = Console(stderr=True)
    with redirect_stdout(sys.stderr):
        if lines or not shows_bar(console):
            yield _lines()
            return
        forecast = Forecast(expected)
        with bar_of(forecast, console) as bar:
            task = bar.add_task("starting")

            def begin(stage: str) -> None:
                forecast.begin(stage)
                bar.update(task, description=stage)

            yield begin


def _lines() -> Progress:
    """A line for each stage. One that goes on in another place is the same stage."""
    last = ""

    def begin(stage: str) -> None:
        nonlocal last
        if stage != last:
            click.echo(f"{stage} ...", err=True)
        last = stage

    return begin


def shows_bar(console: Console) -> bool:
    """Whether lines of a console can be drawn again. ``FORCE_COLOR`` alone makes no terminal of a file."""
    return console.file.isatty() and not console.is_dumb_terminal


def bar_of(forecast: Forecast, console: Console) -> Bar:
    """The bar with what is done, the time left, and the stage."""
    return Bar(
        _Done(forecast, max(console.width // 6, 8)),
        _Left(forecast),
        _Stage(),
        console=console,
        transient=True,
        refresh_per_second=_PER_SECOND,
    )


class _Done(ProgressColumn):
    """The bar itself."""

    def __init__(self, forecast: Forecast, width: int) -> None:
        super().__init__(Column(no_wrap=True, min_width=width))
        self.forecast, self.width = forecast, width

    def render(self, task: Task) -> ProgressBar:
        return ProgressBar(total=1.0, completed=self.forecast.done(), width=self.width)


class _Left(ProgressColumn):
    """The part that is done, and the time left."""

    def __init__(self, forecast: Forecast) -> None:
        super().__init__(Column(no_wrap=True, min_width=len("100% 10:00 left")))
        self.forecast = forecast

    def render(self, task: Task) -> Text:
        return Text(f"{self.forecast.done():4.0%} {time_text(self.forecast.left())} left")


class _Stage(ProgressColumn):
    """The name of the stage. It alone gives way where a line is short."""

    def render(self, task: Task) -> Text:
        return Text(task.description, no_wrap=True, overflow="ellipsis")


def time_text(seconds: float) -> str:
    """Minutes and seconds; dashes if a run takes longer than expected.

    Example:
        >>> time_text(75.4), time_text(3700), time_text(0)
        ('1:16', '61:40', '-:--')
    """
    if seconds <= 0:
        return "-:--"
    minutes, rest = divmod(math.ceil(seconds), 60)
    return f"{minutes}:{rest:02}"
