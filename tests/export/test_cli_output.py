"""What every command prints: the version and the help, no logs of torch, and valid JSON."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import run

from export.report import terminal


def test_version_and_help() -> None:
    """Both give the exit code 0. The help names the commands."""
    assert run("--version").exit_code == 0
    text = run("--help").stdout
    assert all(command in text for command in ("find", "optimize", "check"))


@pytest.mark.slow
def test_what_torch_logs_is_not_repeated(source: Path) -> None:
    """torch logs to the standard error that it found when it was imported.

    So the command runs in a process of its own.
    """
    command = [sys.executable, "-c", "from export.cli import main; main()", "find", f"{source}:untraceable"]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    assert said.returncode == 3
    assert not [line for line in said.stderr.splitlines() if re.match(r"[IWEC]\d{4} ", line)]


def test_json_has_no_infinity() -> None:
    """JSON has no infinity and no NaN. They become null."""
    assert terminal._finite({"a": [float("inf"), (float("nan"), 1.5)]}) == {"a": [None, [None, 1.5]]}
