"""Plans on disk: written whole, read back, gone on from, and never written over what is no plan."""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from export.cli import commands, main
from export.loading import load_model
from export.runtime.blocks import Ratio
from export.runtime.environment import environment
from export.speed import Block, Timing
from export.tune import plan_file
from export.tune.candidates import Candidates
from export.tune.options import Options, Timings
from export.tune.plan_file import read_plan, resume, write_plan
from export.tune.stopwatch import Stopwatch
from fx_passes.capture.routes import capture
from fx_passes.choose.static_rules import static_plan
from fx_passes.errors import ExportError, UsageError
from fx_passes.plan import Choice, Plan
from fx_passes.records import Proposal
from fx_passes.resample.site import lowerable_sites

SOURCE = """
import torch
from torch import nn

def blur(size):
    conv = nn.Conv2d(3, 3, size, padding=size // 2, groups=3)
    conv.weight.data = torch.rand(1, 1, size, size).repeat(3, 1, 1, 1)
    return conv

def two():
    torch.manual_seed(0)
    return nn.Sequential(blur(3), nn.ReLU(), blur(5)), (torch.rand(1, 3, 12, 32),)
"""

PLAN = Plan(
    {
        "a": Choice("0123456789abcdef", Proposal("polyphase", (("phases", 16),), "finite")),
        "b": Choice("fedcba9876543210", None),
    },
    {"by": "tuning", "timings_ms": {"0123456789abcdef": {"expand": 2.0, "polyphase(phases=16)": 1.25}}},
)


def test_a_plan_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Choices, and how they were made; the text is the same each time, and nothing else is left behind."""
    file = tmp_path / "plan.json"
    write_plan(PLAN, file)
    assert read_plan(file) == PLAN
    assert os.listdir(tmp_path) == ["plan.json"]
    before = file.read_bytes()
    write_plan(read_plan(file), file)
    assert file.read_bytes() == before


def test_a_plan_that_cannot_be_written(tmp_path: Path) -> None:
    """One line that names the file; what was there stays, and no half-written file."""
    with pytest.raises(ExportError, match=r"cannot write .*missing/plan.json: No such file or directory$"):
        write_plan(PLAN, tmp_path / "missing" / "plan.json")
    (tmp_path / "plan.json").mkdir()
    with pytest.raises(ExportError, match=r"cannot write .*plan.json: Is a directory$"):
        write_plan(PLAN, tmp_path / "plan.json")


NO_PLANS = {
    "text": (b"notes", "no plan: JSONDecodeError"),
    "bytes": (b"\xff\xfe\x00", "cannot be read"),
    "a list": (b"[1, 2]", "no plan: TypeError"),
    "another schema": (b'{"schema": "fx-passes/find/1", "sites": []}', "has schema 'fx-passes/find/1'"),
    "no sites": (b'{"schema": "fx-passes/plan/1"}', "no plan: KeyError"),
    "a number": (b'{"schema": "fx-passes/plan/1", "sites": 5}', "no plan: AttributeError"),
}


@pytest.mark.parametrize("name", NO_PLANS)
def test_a_file_that_is_no_plan(name: str, tmp_path: Path) -> None:
    """Neither read nor gone on from: a line that names it, and it is not touched."""
    content, said = NO_PLANS[name]
    file = tmp_path / "file.json"
    file.write_bytes(content)
    for use in (read_plan, lambda file: resume(file, 1)):
        with pytest.raises(UsageError, match="file.json: .*" + said) as refused:
            use(file)
        assert "\n" not in str(refused.value)
    assert file.read_bytes() == content


def interrupted(file: Path, threads: int = 1) -> dict[str, dict[str, float]]:
    """Leave in ``file`` what a tuning that was interrupted leaves there."""
    timings = resume(file, threads)
    timings.known["0123456789abcdef"] = {"expand": 2.0, "lift": 1.0}
    timings.save(timings)
    return timings.known


def test_timings_are_gone_on_from(tmp_path: Path) -> None:
    """What was timed before the interruption is known; the file itself is no plan to follow."""
    file = tmp_path / "plan.json"
    assert resume(file, 1).known == {}
    assert not file.exists()
    known = interrupted(file)
    assert resume(file, 1).known == known
    with pytest.raises(
        UsageError, match=r"the tuning was interrupted; run it again with --save-plan .*json$"
    ):
        read_plan(file)


OTHER: dict[str, dict[str, Any]] = {
    "another machine": {"cpu": "another"},
    "another version": {"onnxruntime": "0.0.1"},
    "another number of threads": {"threads": 2},
}


@pytest.mark.parametrize("name", OTHER)
def test_timings_from_elsewhere_are_not_used(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They say nothing about here, and are replaced by those that do."""
    file = tmp_path / "plan.json"
    monkeypatch.setattr(plan_file, "environment", lambda threads: environment(threads) | OTHER[name])
    interrupted(file)
    monkeypatch.setattr(plan_file, "environment", environment)
    timings = resume(file, 1)
    assert timings.known == {}
    timings.save(Timings({"key": {"expand": 1.0}}))
    assert resume(file, 1).known == {"key": {"expand": 1.0}}


def test_threads_of_an_interrupted_tuning(tmp_path: Path) -> None:
    """Timed with two threads: of no use for one, of use for two."""
    file = tmp_path / "plan.json"
    known = interrupted(file, threads=2)
    assert resume(file, 1).known == {}
    assert resume(file, 2).known == known


def test_a_finished_plan_is_not_gone_on_from(tmp_path: Path) -> None:
    """To tune again is to time again; if that is interrupted, the plan is still there."""
    file = tmp_path / "plan.json"
    write_plan(PLAN, file)
    interrupted(file)
    assert resume(file, 1).known == {}
    assert read_plan(file) == PLAN


@pytest.mark.parametrize("timings", [None, 3, {"key": 3}, {"key": {"lift": "fast"}}], ids=str)
def test_timings_that_are_none(timings: object, tmp_path: Path) -> None:
    """An unfinished plan that somebody edited is refused in one line, and left as it is."""
    file = tmp_path / "plan.json"
    made = {"complete": False, "environment": environment(1), "timings_ms": timings}
    write_plan(Plan({}, made), file)
    before = file.read_text()
    with pytest.raises(UsageError, match=r"plan.json: its timings cannot be read; remove the file"):
        resume(file, 1)
    assert file.read_text() == before


@pytest.fixture
def source(tmp_path: Path) -> Path:
    file = tmp_path / "models.py"
    file.write_text(SOURCE)
    return file


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


class Clock:
    """Stands for the timing of single sites; the second one can be interrupted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.timed: list[str] = []
        self.interrupt = False
        block = Block((9.0,), (3.0,), (9.0,))
        stopwatch = Stopwatch(
            self.time_alone,
            lambda files, *_: [Ratio(2.0, (2.0, 2.0))] * (len(files) - 1),
            lambda *_, **__: Timing((block,) * 4, 1),
        )
        monkeypatch.setattr(commands, "Options", partial(Options, stopwatch=stopwatch))

    def time_alone(self, candidates: Candidates, *_: Any) -> dict[str, float]:
        if self.interrupt and self.timed:
            raise KeyboardInterrupt
        self.timed.append(candidates.site.id)
        return {name: 9.0 if name == "expand" else 4.0 for name in candidates.names}


@pytest.mark.slow
def test_an_interrupted_tuning_is_resumed(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was timed is in the file at once, is no plan to follow, and is not timed again."""
    output, plan = tmp_path / "out.onnx", tmp_path / "plan.json"
    arguments = ("optimize", f"{source}:two", "-o", output, "--seconds", 0)
    clock = Clock(monkeypatch)
    clock.interrupt = True
    stopped = run(*arguments, "--save-plan", plan)
    assert stopped.exit_code == 130
    assert clock.timed == ["0/conv2d"]
    assert set(os.listdir(tmp_path)) - {"__pycache__"} == {"models.py", "plan.json"}
    begun = json.loads(plan.read_text())
    assert begun["made"]["complete"] is False
    assert len(begun["made"]["timings_ms"]) == 1

    refused = run(*arguments, "--plan", plan)
    assert refused.exit_code == 2
    assert refused.stderr.splitlines() == [
        f"fx-passes: {plan}: the tuning was interrupted; run it again with --save-plan {plan}"
    ]

    clock.interrupt, clock.timed = False, []
    finished = run(*arguments, "--save-plan", plan)
    assert finished.exit_code == 0, finished.output
    assert clock.timed == ["2/conv2d_1"]
    assert output.exists()
    made = json.loads(plan.read_text())["made"]
    assert made["timings_ms"].items() > begun["made"]["timings_ms"].items()
    assert "complete" not in made
    assert [choice.proposal is not None for choice in read_plan(plan).choices.values()] == [True, True]


@pytest.mark.parametrize("lowering", ["tuned", "static"])
def test_save_plan_does_not_overwrite_what_is_no_plan(lowering: str, source: Path, tmp_path: Path) -> None:
    """Before any work is done: exit 2, one line, nothing written."""
    notes = tmp_path / "notes.txt"
    notes.write_text("notes")
    arguments = ("optimize", f"{source}:two", "-o", tmp_path / "out.onnx", "--lowering", lowering)
    result = run(*arguments, "--save-plan", notes)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"fx-passes: {notes}: the file is no plan: ")
    assert len(result.stderr.splitlines()) == 1
    assert notes.read_text() == "notes"
    assert not (tmp_path / "out.onnx").exists()


def test_save_plan_beside_plan_does_not_overwrite_either(source: Path, tmp_path: Path) -> None:
    """The same where the plan is given."""
    notes, plan = tmp_path / "notes.txt", tmp_path / "plan.json"
    notes.write_text("notes")
    loaded = load_model(f"{source}:two", ())
    sites, _ = lowerable_sites(capture(loaded.model, loaded.example_inputs).graph_module)
    write_plan(static_plan(sites), plan)
    arguments = ("optimize", f"{source}:two", "-o", tmp_path / "out.onnx", "--seconds", 0)
    result = run(*arguments, "--plan", plan, "--save-plan", notes)
    assert notes.read_text() == "notes"
    assert result.exit_code == 2


@pytest.mark.slow
def test_the_plan_of_expand_has_all_sites(source: Path, tmp_path: Path) -> None:
    """What ``--lowering expand`` saves can be followed: it keeps every site as it is."""
    plan = tmp_path / "plan.json"
    arguments = ("optimize", f"{source}:two", "-o", tmp_path / "out.onnx", "--seconds", 0)
    assert run(*arguments, "--lowering", "expand", "--save-plan", plan).exit_code == 0
    choices = read_plan(plan).choices
    assert [(name, choice.proposal) for name, choice in choices.items()] == [
        ("0/conv2d", None),
        ("2/conv2d_1", None),
    ]


def test_save_plan_to_standard_output(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``-``, which is standard output for --json, is refused, and is no name of a file."""
    monkeypatch.chdir(tmp_path)
    result = run("optimize", f"{source}:two", "-o", "out.onnx", "--save-plan", "-")
    assert result.exit_code == 2
    assert "a plan is saved to a file" in result.stderr
    assert os.listdir() == ["models.py"]
