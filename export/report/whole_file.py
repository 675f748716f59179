"""Writes a text file completely or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from fx_passes.errors import ExportError


def write_whole(file: Path, text: str) -> None:
    """Write ``text`` to ``file``. An existing file stays as it is until the new one is complete.

    Raises:
        ExportError: the file cannot be written.
    """
    part = file.with_name(f".{file.name}.part")
    try:
        part.write_text(text, encoding="utf-8")
        os.replace(part, file)
    except OSError as error:
        raise ExportError(f"cannot write {file}: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)
