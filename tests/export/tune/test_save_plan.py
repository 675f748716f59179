"""``fx-passes optimize --save-plan``: it saves while it works, and overwrites only plans."""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from command_line import run

from export.cli import optimize as command
from export.loading import load_model
from export.speed import Timing
from export.tune.candidates import Candidates
from export.tune.options import Options
from export.tune.plan_file import read_plan, write_plan
from export.tune.stopwatch import Stopwatch
from fx_passes.capture.routes import capture
from fx_passes.choose.static_rules import static_plan
from fx_passes.resample.lowerable import lowerable_sites
from fx_passes.timing.blocks import Ratio
from fx_passes.timing.claims import Block

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


@pytest.fixture
def source(tmp_path: Path) -> Path:
    file = tmp_path / "models.py"
    file.write_text(SOURCE)
    return file


class Clock:
    """Stands in for the timing of single sites. It can be interrupted at the second one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.timed: list[str] = []
        self.interrupt = False
        block = Block((9.0,), (3.0,), (9.0,))
        stopwatch = Stopwatch(
            self.time_alone,
            lambda files, *_: [Ratio(2.0, (2.0, 2.0))] * (len(files) - 1),
            lambda *_, **__: Timing((block,) * 4),
        )
        monkeypatch.setattr(command, "Options", partial(Options, stopwatch=stopwatch))

    def time_alone(self, candidates: Candidates, *_: Any) -> dict[str, float]:
        if self.interrupt and self.timed:
            raise KeyboardInterrupt
        self.timed.append(candidates.site.id)
        return {name: 9.0 if name == "expand" else 4.0 for name in candidates.names}


@pytest.mark.slow
def test_an_interrupted_tuning_is_resumed(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was timed is in the file at once. The file is not yet a plan to follow. The second run does not
    time it again."""
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
    """The command ends before any work, with code 2 and one line. Nothing is written."""
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
    """The same holds if ``--plan`` is given as well."""
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
    """``--lowering expand`` saves a plan that can be followed: it keeps every site as it is."""
    plan = tmp_path / "plan.json"
    arguments = ("optimize", f"{source}:two", "-o", tmp_path / "out.onnx", "--seconds", 0)
    assert run(*arguments, "--lowering", "expand", "--save-plan", plan).exit_code == 0
    choices = read_plan(plan).choices
    assert [(name, choice.proposal) for name, choice in choices.items()] == [
        ("0/conv2d", None),
        ("2/conv2d_1", None),
    ]


def test_save_plan_to_standard_output(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``-`` is refused. For ``--json`` it is standard output, so here it is not the name of a file."""
    monkeypatch.chdir(tmp_path)
    result = run("optimize", f"{source}:two", "-o", "out.onnx", "--save-plan", "-")
    assert result.exit_code == 2
    assert "a plan is saved to a file" in result.stderr
    assert os.listdir() == ["models.py"]
