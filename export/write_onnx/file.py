"""ONNX models as files: checked first, and then written completely or not at all."""

from __future__ import annotations

import contextlib
import filecmp
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import onnx
import onnx_ir as ir

from export.runtime.files import is_large
from fx_passes.errors import ExportError

try:
    import fcntl
except ImportError:  # Windows: the folder of a killed run stays
    fcntl = None  # type: ignore[assignment]

# A folder without a lock may be one that another run is making just now.
_LOCK, _MAKING_SECONDS = ".fx-passes.lock", 60.0


def save(model: ir.Model, path: Path) -> Path:
    """Check ``model`` and write it to ``path``. Only complete files are moved into place.

    Raises:
        ExportError: ``onnx.checker`` refuses the model, or the folder cannot be written to.
    """
    try:
        with folder_beside(path) as folder:
            written, data = folder / path.name, f"{path.name}.data"
            ir.save(model, written, external_data=data if is_large(model) else None)
            onnx.checker.check_model(str(written), full_check=True)
            move_model(written, path, [data] if (folder / data).exists() else [])
    except OSError as error:
        raise ExportError(f"cannot write {path}: {error.strerror or error}") from error
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        said = str(error).strip().partition("\n")[0]
        raise ExportError(f"onnx.checker refuses the exported model: {said}") from error
    return path


@contextmanager
def folder_beside(path: Path) -> Iterator[Path]:
    """A folder for unfinished files, on the file system of ``path``. It is removed at the end.

    A run that is killed leaves its folder behind. The next run for the same ``path`` removes it. A run holds
    a lock within its folder for as long as it lives.

    Raises:
        ExportError: the folder cannot be made.
    """
    prefix = f".{path.name}.fx-passes-"
    _remove_stale(path.parent, prefix)
    try:
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=path.parent))
    except OSError as error:
        raise ExportError(f"cannot write {path}: {error.strerror or error}") from error
    lock = _locked(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            lock.close()


def _locked(folder: Path) -> IO[str] | None:
    """The lock of a folder, held until it is closed. None if another run holds it."""
    if fcntl is None:
        return None
    lock = (folder / _LOCK).open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        return None
    return lock


def _remove_stale(parent: Path, prefix: str) -> None:
    with contextlib.suppress(OSError):  # no such folder: making one in it will raise
        for folder in parent.iterdir():
            if folder.name.startswith(prefix) and _is_stale(folder):
                shutil.rmtree(folder, ignore_errors=True)


def _is_stale(folder: Path) -> bool:
    """Whether the run that made ``folder`` is gone."""
    try:
        if not (folder / _LOCK).exists():
            return time.time() - folder.stat().st_mtime > _MAKING_SECONDS
        lock = _locked(folder)
    except OSError:  # another run removed it, or it belongs to someone else
        return False
    if lock is None:
        return False
    lock.close()
    return True


def move_model(source: Path, target: Path, weights: Sequence[str]) -> None:
    """Move a model with its files of weights over ``target``, on the same file system.

    A file of weights that is there already, with the same contents, stays.

    Args:
        weights: the files of weights, relative to the folders of ``source`` and of ``target``.

    Raises:
        ExportError: ``target`` cannot be replaced.
    """
    try:
        for location in weights:
            ours, place = source.parent / location, target.parent / location
            if place.exists() and filecmp.cmp(ours, place, shallow=False):
                continue
            place.parent.mkdir(parents=True, exist_ok=True)
            os.replace(ours, place)
        os.replace(source, target)
    except OSError as error:
        raise ExportError(f"cannot write {target}: {error.strerror or error}") from error
