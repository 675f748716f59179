"""The bar over all stages: the time left, and where there is none."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from export import optimize
from export.job.expected import expected_stages
from export.report.forecast import Expected, Forecast
from export.report.progress import bar_of, progress
from export.tune.options import Options
from fx_passes.example import blur

STAGES = [Expected("loading", 1), Expected("timing", 10, limited=True), Expected("writing", 2)]


class Clock:
    """A clock that stands still until it is told."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_time_left() -> None:
    """What is expected less what is spent. A slow first stage makes the others longer, not those that end by
    the clock."""
    clock = Clock()
    forecast = Forecast(STAGES, clock)
    assert forecast.left() == 13
    forecast.begin("loading")
    clock.now = 3.0
    assert forecast.left() == 12  # nothing of the first
    forecast.begin("timing")
    assert forecast.left() == 10 + 3 * 2
    clock.now = 5.0
    assert forecast.left() == 8 + 3 * 2
    forecast.begin("writing")
    assert forecast.left() == 6
    clock.now = 60.0
    assert forecast.left() == 0


def test_what_is_done_never_becomes_less() -> None:
    """Also where a stage takes longer than expected, comes again, or was not expected."""
    clock = Clock()
    forecast, seen = Forecast(STAGES, clock), []
    for now, stage in enumerate(["loading", "loading", "other", "timing", "loading", "writing", "timing"]):
        clock.now = 4.0 * now
        forecast.begin(stage)
        seen.append(forecast.done())
    assert seen == sorted(seen)
    assert 0 <= seen[0] < seen[-1] <= 1


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_the_time_left_is_readable(width: int) -> None:
    """At each width; the name of the stage gives way."""
    file = io.StringIO()
    console = Console(file=file, width=width, force_terminal=True, color_system=None)
    clock = Clock()
    bar = bar_of(Forecast(STAGES, clock), console)
    bar.add_task("exporting the whole graph with the fastest lowerings")
    clock.now = 2.0
    console.print(bar.get_renderable())
    (line,) = file.getvalue().splitlines()
    assert re.search(r" +13% 0:13 left  exporting the", line)
    assert ("…" in line) == (width < 100)


def test_without_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """One line a stage on standard error, also where colors are forced; what a model prints goes there."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    with progress(STAGES) as show:
        show("loading x")
        print("a model")
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "loading x ...\na model\n")


def test_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing at all."""
    with progress(STAGES, quiet=True) as show:
        show("loading x")
        print("a model")
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "")


@pytest.mark.slow
def test_the_stages_are_those_of_a_run(tmp_path: Path) -> None:
    """Each stage of a run is expected, and in this order."""
    said: list[str] = []
    optimize(*blur(), tmp_path / "o.onnx", budget=2, seconds=0.5, progress=said.append)
    names = [one.name for one in expected_stages(Options())][1:]
    places = [[i for i, name in enumerate(names) if one.startswith(name)] for one in dict.fromkeys(said)]
    assert places == [[i] for i in range(len(names))]
