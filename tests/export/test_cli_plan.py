"""A tuning on the command line: what it reports, and the plan that it saves."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from command_line import run, write_models

from export.cli import optimize as command
from export.speed import Timing
from export.tune.candidates import Candidates
from export.tune.options import Options
from export.tune.stopwatch import Stopwatch
from fx_passes.lowerings import MODULES
from fx_passes.timing.blocks import Ratio
from fx_passes.timing.claims import Block


@dataclass(frozen=True)
class Tuned:
    """A tuning of ``blurs`` on a clock of our own. By this clock ``polyphase(phases=8)`` is the fastest."""

    folder: Path
    source: Path
    result: Result

    @property
    def data(self) -> dict[str, Any]:
        return json.loads((self.folder / "out.json").read_text())

    def run(self, model: str, output: Path, *more: object) -> Result:
        """Optimize a model by the saved plan."""
        arguments = ("optimize", f"{self.source}:{model}", "-o", output, "--seconds", 0)
        return run(*arguments, "--plan", self.folder / "plan.json", *more)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    def time_alone(candidates: Candidates, *_: Any) -> dict[str, float]:
        times = {"expand": 9.0, "polyphase(phases=8)": 3.0}
        return {name: times.get(name, 8.0) for name in candidates.names}

    def against_first(files: Sequence[Path], *_: Any) -> list[Ratio]:
        return [Ratio(2.0, (2.0, 2.0))] * (len(files) - 1)

    def measured(*_: Any, **__: Any) -> Timing:
        return Timing((Block((9.0,), (3.0,), (9.0,)),) * 4)

    folder = tmp_path_factory.mktemp("tuned")
    source = write_models(folder)
    shown = "--sites", "--verbose"
    arguments = ("optimize", f"{source}:blurs", "-o", folder / "out.onnx", "--seconds", 0, *shown)
    with pytest.MonkeyPatch.context() as patch:
        stopwatch = Stopwatch(time_alone, against_first, measured)
        patch.setattr(command, "Options", partial(Options, stopwatch=stopwatch))
        result = run(*arguments, "--save-plan", folder / "plan.json", "--json", folder / "out.json")
    assert result.exit_code == 0, result.output
    return Tuned(folder, source, result)


def test_optimize_says_what_it_chose(tuned: Tuned) -> None:
    """With --sites, the table has each site, its lowering, and how exact that is. The verdict follows.

    With --verbose, standard error says what was timed.
    """
    for site, shape in (("0/conv2d", "3x1x3x3 -> 1x1x3x3"), ("2/conv2d_1", "3x1x5x5 -> 1x1x5x5")):
        (line,) = [line for line in tuned.result.stdout.splitlines() if f" {site} " in line]
        assert shape in line
        assert line.endswith("polyphase(phases=8) (rounds differently, for finite inputs)")
        assert f"timing {site} at " in tuned.result.stderr
    assert "equivalence: passed, within bounds in 7 cases (float64, " in tuned.result.stdout


def test_json_of_optimize(tuned: Tuned) -> None:
    """Each site has its lowering, how exact that is, and every candidate with its time."""
    assert tuned.data["schema"] == "fx-passes/optimize/1"
    assert [site["id"] for site in tuned.data["sites"]] == ["0/conv2d", "2/conv2d_1"]
    for site in tuned.data["sites"]:
        assert site["lowering"] == "polyphase(phases=8)"
        assert site["exactness"] == "finite"
        assert {"lowering": "expand", "ms": 9.0} in site["candidates"]
        assert {"lowering": "polyphase(phases=8)", "ms": 3.0} in site["candidates"]
        assert {"lowering": "polyphase(phases=32)", "ms": 8.0} in site["candidates"]
    assert tuned.data["equivalence"]["cases"] == 7
    assert tuned.data["equivalence"]["bitwise"] is False


@pytest.mark.slow
def test_a_plan_reproduces_the_tuned_file(
    tuned: Tuned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is the same, byte for byte. Nothing is timed to decide.

    The JSON still has the times of the tuning.
    """

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("something was timed")

    stopwatch = Stopwatch(refuse, refuse, refuse, refuse)
    monkeypatch.setattr(command, "Options", partial(Options, stopwatch=stopwatch))
    monkeypatch.setattr("export.tune.fastest.make_candidates", refuse)
    output = tmp_path / "again.onnx"
    result = tuned.run("blurs", output, "--json", "-")
    assert result.exit_code == 0, result.output
    assert output.read_bytes() == (tuned.folder / "out.onnx").read_bytes()
    assert json.loads(result.stdout)["sites"] == tuned.data["sites"]


@pytest.mark.slow
def test_a_plan_that_does_not_fit(tuned: Tuned, tmp_path: Path) -> None:
    """The plan was made for another model, or it is less exact than is allowed.

    The exit code is 2, the error is one line, and an existing file stays as it was.
    """
    output = tmp_path / "out.onnx"
    output.write_text("before")
    cases = {
        ("shared", "finite"): "the plan does not fit this model: 1 site.* differ.*`2/conv2d_1`",
        ("other_blurs", "finite"): "the plan does not fit this model: kernel or shapes of `0/conv2d` are not",
        ("blurs", "reordered"): "the plan is finite, and only reordered is allowed",
    }
    for (model, exactness), said in cases.items():
        result = tuned.run(model, output, "--exactness", exactness)
        assert result.exit_code == 2, result.output
        (error,) = [line for line in result.stderr.splitlines() if not line.endswith(" ...")]
        assert re.match(f"fx-passes: {said}", error)
        assert result.stdout == ""
    assert output.read_text() == "before"
    assert os.listdir(tmp_path) == ["out.onnx"]


@pytest.mark.slow
def test_a_faulty_lowering_is_exit_1(tuned: Tuned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line names the output and the site. An existing file stays as it was."""
    polyphase = MODULES["polyphase"].Module
    prepare = polyphase.prepare

    def faulty(self: Any, kernel: Any) -> None:
        prepare(self, kernel * 1.001 if kernel.shape[-1] == 5 else kernel)

    monkeypatch.setattr(polyphase, "prepare", faulty)
    output = tmp_path / "out.onnx"
    output.write_text("before")
    result = tuned.run("blurs", output)
    assert result.exit_code == 1
    last = result.stderr.splitlines()[-1]
    assert last.startswith("fx-passes: not equivalent: output `conv2d_1` at [0, ")
    assert last.endswith("; caused by site 2/conv2d_1")
    assert output.read_text() == "before"
    assert os.listdir(tmp_path) == ["out.onnx"]
