"""The command ``optimize``: what it prints, its exit codes, and the file that it writes."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import run

from export.write_onnx import kernels_once
from export.write_onnx.kernels_once import Repeated


@pytest.mark.slow
def test_optimize_writes_verifies_and_measures(source: Path, tmp_path: Path) -> None:
    """The exit code is 0. The command prints the table and the verdicts, and writes the file."""
    output = tmp_path / "out.onnx"
    result = run("optimize", f"{source}:shared", "-o", output, "--lowering", "expand", "--seconds", 0.2, "-v")
    assert result.exit_code == 0
    assert "4x1x3x3 -> 1x1x3x3  0/conv2d    expand\n" in result.stdout
    assert "equivalence: passed, equal bits in 8 cases" in result.stdout
    assert "speed: " in result.stdout
    assert "original against itself: " in result.stdout
    assert "s exporting the original\n" in result.stdout
    assert "s measuring speed\n" in result.stdout
    assert f"written: {output}" in result.stdout
    assert "exporting the original ..." in result.stderr
    assert output.exists()


@pytest.mark.slow
def test_nothing_shared_is_the_plain_export_and_says_so(source: Path, tmp_path: Path) -> None:
    """The exit code is 0, and with --strict it is 4.

    In both cases the verified file is written.
    """
    output = tmp_path / "out.onnx"
    arguments = ("optimize", f"{source}:unshared", "-o", output, "--seconds", 0)
    result = run(*arguments)
    assert result.exit_code == 0
    assert "nothing was shared: the output is the plain export" in result.stdout
    strict = run(*arguments, "--strict")
    assert strict.exit_code == 4
    assert strict.stderr.endswith("fx-passes: nothing was shared (--strict)\n")
    assert output.exists()


@pytest.mark.slow
def test_strict_without_a_gain_is_exit_4(source: Path, tmp_path: Path) -> None:
    """``expand`` is never faster.

    With --strict, the command says so after it has written the file.
    """
    result = run("optimize", f"{source}:shared", "-o", tmp_path / "o.onnx", "--seconds", 0, "--strict")
    assert result.exit_code == 4
    assert result.stderr.endswith("nothing got measurably faster (--strict)\n")


@pytest.mark.slow
def test_not_equivalent_is_exit_1_and_no_file(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault is planted. One line names the output and the site.

    No file is written, and an existing file stays as it was.
    """
    expansion = kernels_once._expansion

    def wrong(weight: str, site: Repeated, *arguments: Any, **keywords: Any) -> Any:
        return expansion(weight, replace(site, values=site.values * np.float32(1.01)), *arguments, **keywords)

    monkeypatch.setattr(kernels_once, "_expansion", wrong)
    output = tmp_path / "out.onnx"
    output.write_text("before")
    result = run("optimize", f"{source}:shared", "-o", output)
    assert result.exit_code == 1
    last = result.stderr.splitlines()[-1]
    assert last.startswith("fx-passes: not equivalent: output `conv2d` at [0, 0, 0, 0]")
    assert last.endswith("caused by site 0/conv2d")
    assert output.read_text() == "before"
    assert set(os.listdir(tmp_path)) - {"__pycache__"} == {"models.py", "out.onnx"}
