"""Errors on the command line: the exit codes 2 and 3, and one line that says what is wrong."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from command_line import run

from export.cli import find as command

USAGE = {
    "no command": [],
    "no model": ["find"],
    "no output": ["optimize", "{source}:shared"],
    "unknown option": ["find", "{source}:shared", "--nonsense"],
    "unknown lowering": ["optimize", "{source}:shared", "-o", "x.onnx", "--lowering", "magic"],
    "no threads": ["optimize", "{source}:shared", "-o", "x.onnx", "--threads", "0"],
    "model without a colon": ["find", "models.py"],
    "nothing before the colon": ["find", ":shared"],
    "sizes that are none": ["find", "{source}:shared", "--input", "1x"],
    "no inputs": ["optimize", "{source}:no_inputs", "-o", "x.onnx"],
    "an argument that is not there": ["optimize", "{source}:shared", "-o", "x.onnx", "--dynamic", "y:0"],
    "a file to check that is not there": ["check", "a.onnx", "b.onnx"],
    "json nowhere": ["find", "{source}:shared", "--json", "/nonexistent/x.json"],
}


@pytest.mark.parametrize("name", USAGE)
def test_usage_errors_are_exit_2(name: str, source: Path) -> None:
    """Wrong arguments give the exit code 2. The last line says what is wrong."""
    result = run(*(argument.format(source=source) for argument in USAGE[name]))
    assert result.exit_code == 2, result.output
    assert result.stderr
    assert "Traceback" not in result.output
    assert not Path("x.onnx").exists()


LOADING = {
    "missing file": ["find", "missing.py:model"],
    "missing attribute": ["find", "{source}:shraed"],
    "cannot be captured": ["find", "{source}:untraceable"],
    "cannot be exported": ["optimize", "{source}:untraceable", "-o", "x.onnx"],
    "a model that ends the process": ["find", "{source}:exits"],
    "one that does so when it is exported": ["optimize", "{source}:exits", "-o", "x.onnx"],
    "no folder to work in": ["optimize", "{source}:shared", "-o", "/proc/x.onnx"],
    "no folder": ["optimize", "{source}:shared", "-o", "/nonexistent/x.onnx"],
}


@pytest.mark.parametrize("name", LOADING)
def test_what_cannot_be_loaded_captured_or_exported_is_exit_3(name: str, source: Path) -> None:
    """The exit code is 3, and the error is one line."""
    result = run(*(argument.format(source=source) for argument in LOADING[name]))
    assert result.exit_code == 3, result.output
    assert result.stderr.splitlines()[-1].startswith("fx-passes: ")
    assert not re.search("Traceback|unexpected", result.output)


def test_the_unforeseen_is_not_taken_for_a_difference(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The exit code 1 means not equivalent.

    So an error that nobody foresaw gives one line and the exit code 3.
    """

    def breaks(*arguments: object, **options: object) -> None:
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(command, "judge_graph", breaks)
    result = run("find", f"{source}:shared")
    assert result.exit_code == 3
    assert result.stderr.endswith("unexpected ZeroDivisionError: planted (--debug shows where)\n")


@pytest.mark.parametrize("model", ["noise", "dropout"])
def test_random_numbers_are_exit_3(model: str, source: Path, tmp_path: Path) -> None:
    """A model that draws random numbers gives another output each time.

    This is not the same as a model that is not equivalent.
    """
    result = run("optimize", f"{source}:{model}", "-o", tmp_path / "out.onnx", "--seconds", 0)
    assert result.exit_code == 3
    last = result.stderr.splitlines()[-1]
    assert last.startswith("fx-passes: the original gives another output `")
    assert last.endswith("; does it draw random numbers?")
    assert not (tmp_path / "out.onnx").exists()
