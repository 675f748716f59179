"""What is unfinished lies in a folder that goes, however the run ends."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from export.write_onnx.file import _MAKING_SECONDS, folder_beside
from fx_passes.errors import ExportError

# Makes the folder, says so, and waits for its end.
HOLDS = """
import sys, time
from pathlib import Path
from export.write_onnx.file import folder_beside
with folder_beside(Path(sys.argv[1])) as folder:
    (folder / "model").write_text("weights")
    print("ready", flush=True)
    time.sleep(60)
"""
# The command line with a model that says when it is loaded, and then takes its time.
SLOW = """
import time
from torch import nn
import torch

def build():
    print("ready", flush=True)
    return Slow(), (torch.rand(1, 4, 8, 8),)

class Slow(nn.Module):
    def forward(self, x):
        time.sleep(60)
        return x
"""


def started(*arguments: str) -> subprocess.Popen[str]:
    """A python process that has said "ready", on either of its streams."""
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "ready" in line:
            return process
    raise AssertionError("it ended before it was ready")


def test_the_folder_goes_at_the_end(tmp_path: Path) -> None:
    """With what is in it, also where an error ends it."""
    with contextlib.suppress(ZeroDivisionError), folder_beside(tmp_path / "out.onnx") as folder:
        (folder / "model").write_text("weights")
        raise ZeroDivisionError
    assert os.listdir(tmp_path) == []


@pytest.mark.slow
def test_the_folder_of_a_killed_run_goes_with_the_next(tmp_path: Path) -> None:
    """What a run that was killed left is removed; that of a run that lives, or of another file, is not."""
    out = tmp_path / "out.onnx"
    killed, alive = started("-c", HOLDS, str(out)), started("-c", HOLDS, str(out))
    other = started("-c", HOLDS, str(tmp_path / "other.onnx"))
    for process in (killed, other):
        process.kill()
        process.communicate()  # waits, and closes the pipe
    assert len(os.listdir(tmp_path)) == 3
    with folder_beside(out) as folder:
        assert len(os.listdir(tmp_path)) == 3  # of the one that lives, of the other file, and this one
    assert not folder.exists()
    alive.terminate()
    alive.communicate()
    assert sum(name.startswith(".other.onnx.") for name in os.listdir(tmp_path)) == 1


def test_a_folder_that_is_being_made_stays(tmp_path: Path) -> None:
    """Without a lock it may be another run's of this moment; of long ago it is stale."""
    made = tmp_path / ".out.onnx.fx-passes-abc"
    made.mkdir()
    with folder_beside(tmp_path / "out.onnx"):
        assert made.exists()
    long_ago = time.time() - _MAKING_SECONDS - 1
    os.utime(made, (long_ago, long_ago))
    with folder_beside(tmp_path / "out.onnx"):
        assert not made.exists()


def test_folders_of_others_stay(tmp_path: Path) -> None:
    """Only what has our name is removed."""
    for name in (".out.onnx.backup", "out.onnx.fx-passes-abc", ".out.onnx"):
        (tmp_path / name).mkdir()
    before = sorted(os.listdir(tmp_path))
    with folder_beside(tmp_path / "out.onnx"):
        pass
    assert sorted(os.listdir(tmp_path)) == before


def test_no_folder_no_file(tmp_path: Path) -> None:
    """A folder that is not there is said so."""
    with pytest.raises(ExportError, match="cannot write"), folder_beside(tmp_path / "none" / "out.onnx"):
        pass


# What a shell starts in the background, or nohup, inherits signals that are ignored.
HEEDS = """
import signal, sys
from export.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
main(sys.argv[1:])
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_leaves_nothing_behind(number: signal.Signals, tmp_path: Path) -> None:
    """One line, the exit code that shells give, no folder, and an existing file as it was."""
    model = tmp_path / "model.py"
    model.write_text(SLOW)
    out = tmp_path / "written" / "out.onnx"
    out.parent.mkdir()
    out.write_text("before")
    process = started("-c", HEEDS, "optimize", f"{model}:build", "-o", str(out), "--seconds", "0")
    while len(os.listdir(out.parent)) < 2:
        assert process.poll() is None, "it ended before it made a folder"
        time.sleep(0.02)
    process.send_signal(number)
    said, _ = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert said.splitlines()[-1].endswith("unfinished files were removed")
    assert os.listdir(out.parent) == ["out.onnx"]
    assert out.read_text() == "before"
