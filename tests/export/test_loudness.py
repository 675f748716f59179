"""--quiet, --verbose and --debug, in front of a command and behind it."""

from __future__ import annotations

import json
import logging
import warnings
from pathlib import Path

import pytest
from command_line import run

from export.cli import find as command
from export.cli import main


@pytest.mark.parametrize("quiet", [("-q", "find"), ("--quiet", "find"), ("find", "-q"), ("find", "--quiet")])
def test_quiet_says_nothing(quiet: tuple[str, ...], source: Path) -> None:
    """Nothing is printed if all went well."""
    result = run(*quiet, f"{source}:no_inputs")
    assert (result.exit_code, result.output) == (0, "")


def test_quiet_gives_errors_and_json(source: Path, tmp_path: Path) -> None:
    """An error is one line. ``--json -`` writes JSON, and ``--json FILE`` the file."""
    result = run("find", "missing.py:model", "-q")
    assert (result.exit_code, result.output) == (3, "fx-passes: no such file: missing.py\n")
    result = run("find", f"{source}:no_inputs", "-q", "--json", "-")
    assert json.loads(result.stdout) and not result.stderr
    result = run("find", f"{source}:no_inputs", "-q", "--json", tmp_path / "f.json")
    assert result.output == ""
    assert json.loads((tmp_path / "f.json").read_text())


def test_usual(source: Path) -> None:
    """The result on standard output, a line for each stage on standard error."""
    result = run("find", f"{source}:no_inputs")
    assert [line.split()[0] for line in result.stderr.splitlines()] == ["loading", "capturing", "finding"]
    assert "1 of 1 candidate" in result.stdout


@pytest.mark.parametrize("where", [("-v", "check"), ("check", "--verbose")])
def test_verbose_gives_the_steps(where: tuple[str, ...], source: Path, tmp_path: Path) -> None:
    """Each case that is checked has a line; without it, the stage alone."""
    file = tmp_path / "o.onnx"
    said = run("optimize", f"{source}:shared", "-o", file, "--lowering", "expand", "--seconds", 0)
    assert said.exit_code == 0 and "checking:" not in said.output
    assert run("check", file, file).stderr == "checking equivalence ...\n"
    lines = run(*where, file, file).stderr.splitlines()
    assert lines[0] == "checking equivalence ..."
    assert len(lines) > 5 and all(line.startswith("  checking: ") for line in lines[1:])


def test_debug_shows_where(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The place of an error: one that was foreseen, and one that was not. --verbose does not show it."""
    result = run("find", "missing.py:model", "--debug")
    assert "Traceback" in result.stderr and "_import_file" in result.stderr
    assert "Traceback" not in run("find", "missing.py:model", "--verbose").stderr

    def breaks(*arguments: object, **options: object) -> None:
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(command, "judge_graph", breaks)
    result = run("--debug", "find", f"{source}:no_inputs")
    assert result.exit_code == 3
    assert "in breaks" in result.stderr


@pytest.mark.parametrize("loud", ["-v", "--debug"])
def test_quiet_and_loud_is_a_mistake(loud: str, source: Path) -> None:
    """In either order, in front or behind."""
    for arguments in (["-q", loud, "find"], ["-q", "find", loud], ["find", loud, "-q"]):
        result = run(*arguments, f"{source}:no_inputs")
        assert result.exit_code == 2
        assert "--quiet contradicts" in result.stderr


def test_nothing_is_left_behind(source: Path, caplog: pytest.LogCaptureFixture) -> None:
    """After a command in this process, logging and warnings are as they were."""
    names = (None, "torch", "export", "fx_passes")
    for name in names:
        caplog.set_level(logging.WARNING, name)
    before = [logging.getLogger(name).level for name in names], logging.getLogger().handlers[:]
    filters = warnings.filters[:]
    run("find", f"{source}:no_inputs", "--debug")
    assert ([logging.getLogger(name).level for name in names], logging.getLogger().handlers[:]) == before
    assert warnings.filters[:] == filters


def test_every_command_has_them() -> None:
    """A new command, too."""
    for one in (main, *main.commands.values()):
        options = {option for parameter in one.params for option in parameter.opts}
        assert {"-q", "--quiet", "-v", "--verbose", "--debug"} <= options
