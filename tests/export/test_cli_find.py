"""The command ``find``: what it prints, its JSON, and where it looks for sites."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import run


@pytest.mark.slow
def test_find_prints_sites_and_reasons(source: Path) -> None:
    """The output is plain text where there is no terminal.

    A line has the number of sites that are alike, their form, groups, shapes, the first one and the verdict.
    """
    result = run("find", f"{source}:shared")
    assert result.exit_code == 0
    assert "captured by torch.export" in result.stdout
    assert "  1 x  conv2d, 3x3 taps       4  4x1x3x3 -> 1x1x3x3  0/conv2d    shared\n" in result.stdout
    assert "1 of 1 candidate convolutions share a kernel" in result.stdout
    assert "\x1b" not in result.output
    result = run("find", f"{source}:unshared")
    assert "not shared: group 1 differs from group 0 by " in result.stdout


def test_find_json(source: Path, tmp_path: Path) -> None:
    """The JSON goes to a file or to standard output. Standard output then has nothing else."""
    result = run("find", f"{source}:shared", "--json", "-")
    data = json.loads(result.stdout)
    assert data["schema"] == "fx-passes/find/1"
    (site,) = data["sites"]
    assert site["kernel_shape"] == [1, 1, 3, 3]
    assert site["weight_shape"] == [4, 1, 3, 3]
    assert (site["op"], site["groups"], site["origin"]) == ("conv2d", 4, "parameter")
    assert site["shared"] is True
    assert site["reason"] is None
    run("find", f"{source}:shared", "--json", tmp_path / "find.json")
    assert json.loads((tmp_path / "find.json").read_text()) == data


@pytest.mark.slow
def test_find_and_optimize_name_sites_alike(source: Path, tmp_path: Path) -> None:
    """A site has the same id in both commands."""
    found = json.loads(run("find", f"{source}:shared", "--json", "-").stdout)
    arguments = ("optimize", f"{source}:shared", "-o", tmp_path / "o.onnx", "--seconds", 0, "--json", "-")
    optimized = json.loads(run(*arguments).stdout)
    assert [s["id"] for s in found["sites"]] == [s["id"] for s in optimized["sites"]]


@pytest.mark.slow
def test_find_looks_where_optimize_does(source: Path, tmp_path: Path) -> None:
    """torch.export makes graphs of their own under ``no_grad`` and without autocast.

    Both commands look there as well.
    """
    result = run("find", f"{source}:measured")
    assert "1 of 1 candidate convolutions share a kernel" in result.stdout, result.output
    arguments = ("optimize", f"{source}:measured", "-o", tmp_path / "a.onnx", "--json", "-", "--seconds", 0)
    (site,) = json.loads(run(*arguments, "--lowering", "expand").stdout)["sites"]
    assert site["id"] in result.stdout


def test_find_without_inputs(source: Path) -> None:
    """A model that can be traced symbolically needs no inputs.

    Where a model does not give inputs, --input gives them.
    """
    assert "captured by symbolic_trace" in run("find", f"{source}:no_inputs").stdout
    result = run("find", f"{source}:no_inputs", "--input", "1x4x12x12")
    assert "captured by torch.export" in result.stdout


def test_a_pipe_has_no_width(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines are as long as necessary, and without color, whatever a shell says of its terminal."""
    plain = run("find", f"{source}:no_inputs").stdout
    assert "\n  1 x  conv2d, 3x3 taps       4  4x1x3x3 -> 1x1x3x3  0           shared\n" in plain
    for name, value in (("COLUMNS", "20"), ("FORCE_COLOR", "1"), ("TERM", "xterm-256color")):
        monkeypatch.setenv(name, value)
    assert run("find", f"{source}:no_inputs").stdout == plain
    every = run("find", f"{source}:no_inputs", "--sites").stdout
    assert "\nconv2d, 3x3 taps       4  4x1x3x3 -> 1x1x3x3  0     shared\n" in every


@pytest.mark.slow
@pytest.mark.parametrize("more", [{}, {"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_on_a_terminal(more: dict[str, str], source: Path) -> None:
    """One bar, which goes away, and lines that fit the terminal. A dumb one gets a line for each stage."""
    ours, its = os.openpty()
    code = "from export.cli import main; main()"
    command = [sys.executable, "-P", "-c", code, "find", f"{source}:no_inputs"]
    env = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "60", "LINES": "20", **more}
    with subprocess.Popen(command, stdout=its, stderr=its, stdin=its, env=env) as process:
        os.close(its)
        said = b""
        with contextlib.suppress(OSError):  # the other end is closed
            while part := os.read(ours, 1 << 16):
                said += part
    os.close(ours)
    assert process.returncode == 0
    text = said.decode()
    assert ("\x1b[?25l" in text) == (more.get("TERM") != "dumb")
    assert bool(re.search(r"\x1b\[[39]\d?[;\d]*m", text)) == (not more)
    result = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text).splitlines()
    assert result[-4:] == [
        "1 x conv2d, 3x3 taps, 4 groups, 4x1x3x3 -> 1x1x3x3",
        "    shared",
        "    first site: 0",
        "1 of 1 candidate convolutions share a kernel",
    ]
    stages = [line for line in result if line.endswith(" ...")]
    assert len(stages) == (3 if more.get("TERM") == "dumb" else 0)
