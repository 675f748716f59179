"""An ONNX file that is broken, or that lies about what it holds, is refused in one line or is harmless."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
from blur_files import BLUR
from click.testing import CliRunner
from hostile_onnx import LINK, OUTSIDE, WEIGHTS, Hostile, good, hostile

from export.cli import main

FILES = list(hostile())
MOST_KILOBYTES = 500_000  # of memory that all files together may take


@pytest.fixture(scope="module", autouse=True)
def _memory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No file makes the process grow by more than a good one does, but for a limit."""
    path = tmp_path_factory.mktemp("good") / "model.onnx"
    path.write_bytes(good().SerializeToString())
    command = ["optimize", str(path), "-o", str(path.with_name("out.onnx")), "--seconds", "0"]
    result = CliRunner().invoke(main, [*command, "--lowering", "static"])
    assert result.exit_code == 0, result.output
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MOST_KILOBYTES


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with files of weights, and an earlier result."""
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "out.onnx").write_bytes(b"earlier")
    for name in (WEIGHTS, OUTSIDE):
        (folder / name).write_bytes(BLUR.tobytes())
    (folder / LINK).symlink_to(OUTSIDE)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_there_are_enough() -> None:
    """Each file has a name of its own."""
    assert len({file.name for file in FILES}) == len(FILES) > 30


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_optimize(file: Hostile, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is refused leaves everything as it was."""
    monkeypatch.chdir(folder)
    (folder / "model.onnx").write_bytes(file.content)
    before = contents(folder.parent)
    command = ["optimize", "model.onnx", "-o", "out.onnx", "--seconds", "0", "--lowering", "static"]
    result = CliRunner().invoke(main, command)
    after = contents(folder.parent)
    if result.exit_code == 0 and not file.refused:
        assert after.keys() == before.keys()
        return
    require_refused(result.exit_code, result.stderr)
    assert after == before


def require_refused(code: int, stderr: str) -> None:
    """One line says what is wrong, and the error is one that was expected."""
    assert code in (2, 3), stderr
    *stages, said = stderr.splitlines()
    assert said.startswith("fx-passes: ")
    assert "unexpected" not in said
    assert all(stage.endswith(" ...") for stage in stages), stderr  # what was begun
