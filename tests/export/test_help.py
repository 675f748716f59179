"""The help of each command at 80 columns, and what a shell completes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from export.cli import main

COMMANDS = [(), *((name,) for name in main.commands)]


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_help_fits_80_columns(command: tuple[str, ...]) -> None:
    """Every line; the examples are whole lines, each a command that exists."""
    text = CliRunner().invoke(main, [*command, "--help"], terminal_width=80).stdout
    assert max(map(len, text.splitlines())) <= 80
    assert "..." not in text.replace("ARGS]...", "")
    examples = text.partition("Examples:\n")[2].splitlines()
    assert examples
    assert all(line.strip().startswith(("fx-passes", "eval")) for line in examples)
    for line in examples:
        assert line.split()[1] in (*main.commands, "COMMAND"), line


@pytest.mark.parametrize("command", [name for (name,) in COMMANDS[1:]])
def test_examples_parse(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each example has arguments and options that the command takes."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.onnx", "b.onnx", "model.onnx"):
        (tmp_path / name).touch()
    epilog = main.commands[command].epilog or ""
    for line in epilog.splitlines()[2:]:
        _, name, *arguments = line.split()
        assert name == command
        main.commands[command].make_context(name, arguments, parent=main.make_context("fx-passes", [name]))


@pytest.mark.slow
def test_completion() -> None:
    """click's own, in the shell: commands, options, and files for MODEL."""
    program = "from export.cli import main; main(prog_name='fx-passes')"

    def completed(words: str, which: int) -> str:
        asked = {"_FX_PASSES_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(which)}
        command = [sys.executable, "-P", "-c", program]
        return subprocess.run(
            command, env={**os.environ, **asked}, capture_output=True, text=True, check=False
        ).stdout

    assert "plain,optimize" in completed("fx-passes opt", 1)
    assert "plain,--lowering" in completed("fx-passes optimize x --low", 3)
    assert completed("fx-passes optimize mod", 2) == "file,mod\n"
