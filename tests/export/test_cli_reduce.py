"""The command ``reduce``: the smallest piece that fails, and what it says where there is none."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from click.testing import CliRunner
from command_line import run
from torch import nn

from export.cli import reduced
from export.cli.attempt import Outcome, attempt
from export.cli.group import main
from export.cli.steps import steps
from fx_passes.lowerings import MODULES

MODELS = """
import os
import torch
from torch import nn
from fx_passes.lowerings import MODULES

def blur(size):
    conv = nn.Conv2d(3, 3, size, padding=size // 2, groups=3)
    conv.weight.data = (torch.rand(size, 1) * torch.rand(1, size)).repeat(3, 1, 1, 1)
    return conv

def model():
    torch.manual_seed(0)
    layers = nn.ReLU(), blur(11), nn.Sigmoid(), blur(9), nn.Tanh()
    return nn.Sequential(*layers), (torch.rand(1, 3, 64, 64),)

class Aborts(nn.Module):
    def forward(self, x):
        os.abort()

def aborts():
    return Aborts(), (torch.rand(1, 3, 8, 8),)
"""
# Planted where a child of this process sees it, too: in the file of the model.
ABORT = """
prepare = MODULES["separable_polyphase"].Module.prepare

def faulty(self, kernel):
    if kernel.shape[-1] == 9:
        os.abort()
    prepare(self, kernel)

MODULES["separable_polyphase"].Module.prepare = faulty
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "models_of_the_user.py").write_text(MODELS)
    return tmp_path / "models_of_the_user.py"


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Attempts are made in this process: faults that are planted here are seen. Which commands there were."""
    asked: list[str] = []

    def here(arguments: Sequence[object], *, first: str | None, limit: float) -> Outcome:
        texts = [str(argument) for argument in arguments]
        asked.append(texts[0])
        result = CliRunner().invoke(steps if texts[0] in steps.commands else main, texts)
        lines = result.stderr.strip().splitlines() or [""]
        return Outcome(result.exit_code, lines[-1].removeprefix("fx-passes: ") if result.exit_code else "")

    monkeypatch.setattr(reduced, "attempt", here)
    return asked


def wrong(module: Any, kernel: torch.Tensor) -> None:
    """A fault in numbers."""
    next(module.buffers()).mul_(1.01)


def raises(module: Any, kernel: torch.Tensor) -> None:
    raise RuntimeError("planted")


def plant(monkeypatch: pytest.MonkeyPatch, fault: Callable[[Any, torch.Tensor], None]) -> None:
    """Make a lowering fail for kernels of 9 taps."""
    module = MODULES["separable_polyphase"].Module
    prepare = module.prepare

    def faulty(self: nn.Module, kernel: torch.Tensor) -> None:
        prepare(self, kernel)
        if kernel.shape[-1] == 9:
            fault(self, kernel)

    monkeypatch.setattr(module, "prepare", faulty)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "said"),
    [(wrong, "not equivalent: output `"), (raises, "unexpected RuntimeError: planted")],
)
def test_the_smallest_piece(
    fault: Any, said: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tried: list[str]
) -> None:
    """It is the one convolution. The command that is printed shows the failure; nothing else is written."""
    plant(monkeypatch, fault)
    small = tmp_path / "small.onnx"
    result = run("reduce", f"{source}:model", "-o", small, "--lowering", "static")
    assert result.exit_code == 0, result.output
    assert f"it fails: {said}" in result.stdout
    assert "smallest piece that does: 1 of 5 nodes (Conv)" in result.stdout
    assert "imported" not in result.stdout
    (node,) = onnx.load(small).graph.node
    assert (node.op_type, len(onnx.load(small).graph.initializer)) == ("Conv", 2)
    assert set(os.listdir(tmp_path)) - {"__pycache__"} == {source.name, small.name}
    (line,) = (line for line in result.stdout.splitlines() if line.startswith("shown by: "))
    _, *command = shlex.split(line.removeprefix("shown by: "))
    monkeypatch.chdir(tmp_path)
    again = run(*command)
    assert again.exit_code == (1 if fault is wrong else 3)
    assert said in again.stderr
    monkeypatch.undo()
    assert run(*command[:3], tmp_path / "out.onnx", *command[4:]).exit_code == 0


@pytest.mark.slow
def test_a_plan_decides(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tried: list[str]
) -> None:
    """Pieces do what the plan says of their sites. Such a plan lies beside the smallest."""
    plan, small = tmp_path / "plan.json", tmp_path / "small.onnx"
    options = ("--lowering", "static", "--save-plan", plan, "--seconds", 0)
    assert run("optimize", f"{source}:model", "-o", tmp_path / "o.onnx", *options).exit_code == 0
    plant(monkeypatch, wrong)
    result = run("reduce", f"{source}:model", "-o", small, "--plan", plan)
    assert "1 of 5 nodes (Conv)" in result.stdout
    assert f"written: {tmp_path / 'small.plan.json'}" in result.stdout
    of_piece = ("--plan", tmp_path / "small.plan.json", "--seconds", 0)
    assert run("optimize", small, "-o", tmp_path / "o.onnx", *of_piece).exit_code == 1


@pytest.mark.slow
def test_nothing_fails(source: Path, tmp_path: Path, tried: list[str]) -> None:
    """It says so, and writes no file."""
    result = run("reduce", f"{source}:model", "-o", tmp_path / "small.onnx", "--lowering", "expand")
    assert result.exit_code == 0
    assert result.stdout.startswith("nothing fails: ")
    assert tried == ["optimize"]
    assert not (tmp_path / "small.onnx").exists()


@pytest.mark.slow
def test_a_failure_of_the_whole_alone(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tried: list[str]
) -> None:
    """The graph alone does not fail: there is no piece, the message says why, and an existing file stays."""
    here = vars(reduced)["attempt"]

    def whole_fails(arguments: Sequence[object], **more: Any) -> Outcome:
        outcome = here(arguments, **more)
        return Outcome(1, "not equivalent: x") if str(arguments[1]).endswith(":model") else outcome

    monkeypatch.setattr(reduced, "attempt", whole_fails)
    (tmp_path / "small.onnx").write_text("before")
    result = run("reduce", f"{source}:model", "-o", tmp_path / "small.onnx", "--lowering", "expand")
    assert result.exit_code == 3
    assert "optimize fails (not equivalent: x), but its graph alone does not" in result.stderr
    assert (tmp_path / "small.onnx").read_text() == "before"


def test_wrong_usage(source: Path, tmp_path: Path, tried: list[str]) -> None:
    """What optimize says of it is said; exit code 2. A file that is read is not overwritten."""
    result = run("reduce", f"{source}:model", "-o", tmp_path / "s.onnx", "--input", "no sizes")
    assert result.exit_code == 2
    assert "--input takes sizes like" in result.stderr
    assert run("reduce", f"{source}:model", "-o", source).exit_code == 2


@pytest.mark.slow
def test_a_crash(source: Path, tmp_path: Path) -> None:
    """It ends other processes, not this one. It needs the code of the model, and the report says so."""
    source.write_text(MODELS + ABORT)
    small = tmp_path / "small.onnx"
    result = run("reduce", f"{source}:model", "-o", small, "--lowering", "static")
    assert result.exit_code == 0, result.output
    assert "it fails: it crashed with SIGABRT" in result.stdout
    assert "1 of 5 nodes (Conv)" in result.stdout
    assert f"it fails only after the code of {source}:model was imported" in result.stdout
    assert len(onnx.load(small).graph.node) == 1


@pytest.mark.slow
def test_a_crash_before_there_is_a_graph(source: Path, tmp_path: Path) -> None:
    """The model itself crashes. Nothing can be cut, and the report says so."""
    result = run("reduce", f"{source}:aborts", "-o", tmp_path / "small.onnx")
    assert result.exit_code == 3
    said = "optimize fails before there is a graph that can be cut: it crashed with SIGABRT"
    assert result.stderr.endswith(f"fx-passes: {said}\n")
    assert set(os.listdir(tmp_path)) - {"__pycache__"} == {source.name}


@pytest.mark.slow
def test_a_try_that_takes_too_long() -> None:
    """It is ended, and counts as nothing."""
    outcome = attempt(["--help"], first=None, limit=0.01)
    assert outcome.too_long
    assert outcome.said == "it did not end within 0.01 s"


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ((1, "not equivalent: output `a` at [0]"), (1, "not equivalent: output `b`: NaN"), True),
        ((1, "not equivalent: x"), (3, "not equivalent: x"), False),
        ((-6, "it crashed with SIGABRT"), (-11, "it crashed with SIGSEGV"), False),
        ((3, "unexpected KeyError: 'a'"), (3, "unexpected KeyError: 'b'"), True),
        ((3, "unexpected KeyError: 'a'"), (3, "unexpected TypeError: 'a'"), False),
        ((3, "onnxruntime could not run it: no Conv"), (3, "onnxruntime could not run it: no Pad"), False),
        ((3, "onnxruntime does not accept /tmp/a.onnx: 7"), (3, "onnxruntime does not accept b/c: 8"), True),
    ],
)
def test_failures_that_are_the_same(first: tuple[int, str], second: tuple[int, str], same: bool) -> None:
    """By the code and the words; not by names, numbers and files."""
    assert (Outcome(*first).kind == Outcome(*second).kind) is same
