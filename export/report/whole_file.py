"""Writes a text file completely or not at all."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from fx_passes.errors import ExportError


def write_whole(file: Path, text: str) -> None:
    """Write ``text`` to ``file``. An existing file stays as it is until the new one is complete.

    A link stays a link. What is no regular file, such as a device or a pipe, is written to as it is.

    Raises:
        ExportError: the file cannot be written.
    """
    place = file.resolve()
    regular = place.is_file() or not place.exists()
    part = place.with_name(f".{place.name}.{os.getpid()}.part") if regular else place
    try:
        part.write_text(text, encoding="utf-8")
        if regular:
            os.replace(part, place)
    except OSError as error:
        raise ExportError(f"cannot write {file}: {error.strerror}") from error
    finally:
        if regular:
            with suppress(OSError):
                part.unlink()
