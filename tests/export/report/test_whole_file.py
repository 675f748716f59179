"""Text files are written whole, and what is no regular file stays what it is."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from export.report.terminal import write_json
from export.report.whole_file import write_whole
from fx_passes.errors import ExportError


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    """The file that it names gets the text."""
    (tmp_path / "there").mkdir()
    link, named = tmp_path / "link.html", tmp_path / "there" / "page.html"
    link.symlink_to(named)
    write_whole(link, "new")
    assert link.is_symlink()
    assert named.read_text() == "new"
    assert [file.name for file in named.parent.iterdir()] == ["page.html"]


def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    """It is not replaced by a file."""
    pipe, got = tmp_path / "pipe", list[str]()
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: got.append(pipe.read_text()))
    reader.start()
    write_whole(pipe, "page")
    reader.join(timeout=5)
    assert pipe.is_fifo()
    assert got == ["page"]


@pytest.mark.parametrize("name", ["page.html", "result.json"])
def test_an_old_file_stays_if_the_new_one_fails(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is full, for a page and for JSON: one error, and no part is left."""

    def full(file: Path, text: str, encoding: str | None = None) -> int:
        file.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    file = tmp_path / name
    file.write_text("old")
    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(ExportError, match="No space left"):
        write_json({}, str(file)) if name.endswith("json") else write_whole(file, "new")
    assert file.read_text() == "old"
    assert [one.name for one in tmp_path.iterdir()] == [name]
