"""Both files are also compared where the optimized one will run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import run
from small_files import conv

from export.runtime.in_onnxruntime import in_onnxruntime
from export.runtime.session import CPU
from export.runtime.target import RUNTIMES, Opened, Runtime, Target
from export.verify.equivalence import check_equivalence
from fx_passes.errors import ExportError

Change = Callable[[str, Any], Any]


class Fake:
    """Runs a file in onnxruntime, and changes its outputs as a test says."""

    def __init__(self, change: Change, file: Path | bytes, **options: Any) -> None:
        self.name = file.name if isinstance(file, Path) else ""
        self.change = change
        self.opened = in_onnxruntime(file, **{**options, "provider": CPU})

    def run(self, inputs: Sequence[Any]) -> list[Any]:
        return [self.change(self.name, output) for output in self.opened.run(inputs)]

    def prepared(self, inputs: Sequence[Any]) -> Callable[[], Any]:
        return partial(self.run, inputs)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Callable[[Change], Target]:
    """Registers a runtime that changes outputs."""

    def register(change: Change) -> Target:
        def opening(file: Path | bytes, **options: Any) -> Opened:
            return Fake(change, file, **options)

        monkeypatch.setitem(RUNTIMES, "fake", Runtime(lambda: "1.0", lambda: ["NPU"], "NPU", opening))
        return Target("fake", "NPU")

    return register


def files(folder: Path) -> tuple[Path, Path]:
    return conv(folder / "a.onnx"), conv(folder / "b.onnx")


def test_the_same_numbers_there(fake: Any, tmp_path: Path) -> None:
    """Seven cases at three levels. The verdict names the target."""
    said: list[str] = []
    target = fake(lambda name, output: output)
    result = check_equivalence(*files(tmp_path), target=target, progress=said.append)
    assert result.passed
    assert result.bitwise
    assert result.reference.endswith(", in onnxruntime and in fake")
    assert len(said) == 3 * result.cases == 21
    assert said[-1] == "constant, in fake"


def test_other_numbers_there(fake: Any, tmp_path: Path) -> None:
    """A fault of the optimized file alone is found, although onnxruntime agrees. The message says where."""
    target = fake(lambda name, output: output * np.float32(1.001) if name == "b.onnx" else output)
    result = check_equivalence(*files(tmp_path), target=target)
    assert not result.passed
    assert "(example input, in fake): expected" in str(result.mismatch)
    assert check_equivalence(*files(tmp_path)).passed


def test_the_original_there_is_what_counts(fake: Any, tmp_path: Path) -> None:
    """A target may compute coarsely, if it computes both files alike."""
    target = fake(lambda name, output: output.astype(np.float16).astype(np.float32))
    assert check_equivalence(*files(tmp_path), target=target).passed


def refuses(which: str, case: Callable[[Any], bool]) -> Change:
    """A runtime that does not run a file if its output is as told."""

    def change(name: str, output: Any) -> Any:
        if name == which and case(output):
            raise ExportError("fake could not run the model")
        return output

    return change


def test_a_file_that_does_not_run_there(fake: Any, tmp_path: Path) -> None:
    """Of the optimized file: a fault. Of the original: an error on the example, and a note elsewhere."""
    result = check_equivalence(*files(tmp_path), target=fake(refuses("b.onnx", lambda output: True)))
    assert "in fake): the original runs, the optimized file does not" in str(result.mismatch)
    with pytest.raises(ExportError, match="fake could not run"):
        check_equivalence(*files(tmp_path), target=fake(refuses("a.onnx", lambda output: True)))
    large = fake(refuses("a.onnx", lambda output: bool(np.abs(output).max() > 1e3)))
    result = check_equivalence(*files(tmp_path), target=large)
    assert result.passed
    assert result.cases == 6
    assert any("large: skipped, the original model refuses this input in fake" in n for n in result.notes)


@pytest.mark.slow
def test_exit_codes(fake: Any, source: Path, tmp_path: Path) -> None:
    """1 and no file, where only the target shows the fault; the file is written, where there is none."""
    out = tmp_path / "out.onnx"
    arguments = ("optimize", f"{source}:shared", "-o", out, "--target", "fake", "--lowering", "static")
    fake(lambda name, output: output)
    assert run(*arguments, "--seconds", 0).exit_code == 0
    assert run("check", out, out, "--target", "fake").exit_code == 0
    out.unlink()
    opened: list[int] = []

    def worse(name: str, output: Any) -> Any:
        opened.append(1)
        return output + np.float32(len(opened))

    fake(worse)
    result = run(*arguments, "--seconds", 0)
    assert result.exit_code == 1
    assert "in fake)" in result.stderr
    assert not out.exists()
