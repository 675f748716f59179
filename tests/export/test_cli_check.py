"""The command ``check`` compares two files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import run


@pytest.mark.slow
def test_check(source: Path, tmp_path: Path) -> None:
    """Two equal files pass. For two different files the exit code is 1, and the output names the place."""
    for name in ("shared", "unshared"):
        run("optimize", f"{source}:{name}", "-o", tmp_path / f"{name}.onnx", "--seconds", 0)
    same = run("check", tmp_path / "shared.onnx", tmp_path / "shared.onnx")
    assert same.exit_code == 0
    assert "equivalent: equal bits in 7 cases" in same.stdout
    arguments = ("check", tmp_path / "shared.onnx", tmp_path / "unshared.onnx")
    different = run(*arguments, "--json", "-")
    assert different.exit_code == 1
    data = json.loads(different.stdout)
    assert data["schema"] == "fx-passes/check/1"
    assert data["equivalence"]["passed"] is False
    assert "fx-passes: not equivalent: output `conv2d` at [0, " in different.stderr
