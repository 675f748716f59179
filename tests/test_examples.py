"""The examples run, in the time that the page on training promises, and do what they say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.slow
def test_fine_tuning(tmp_path: Path) -> None:
    """The loss goes down, the model has learned, and the file is written, in under two minutes."""
    out = tmp_path / "textures.onnx"
    run = subprocess.run(
        [sys.executable, EXAMPLES / "fine_tune.py", "--out", out], capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 0, run.stderr[-3000:]
    assert run.stdout.count("for all channels") == 2
    loss = re.search(r"loss ([\d.]+) -> ([\d.]+)", run.stdout)
    accuracy = re.search(r"accuracy (\d+)%", run.stdout)
    assert loss is not None and accuracy is not None
    assert float(loss[2]) < 0.5 * float(loss[1])
    assert int(accuracy[1]) > 60
    assert out.stat().st_size > 1000
    assert "equivalent in onnxruntime" in run.stdout
