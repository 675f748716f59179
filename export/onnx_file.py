"""ONNX models as files: written whole or not at all, and checked before they are."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import onnx
import onnx_ir as ir

from fx_passes.errors import ExportError

# Initializers move to a second file above this size: a protobuf message holds at most 2 GiB.
LARGE_BYTES = 1_800_000_000


def save(model: ir.Model, path: Path) -> Path:
    """Check ``model`` and write it to ``path``, all or nothing: complete files are moved into place.

    Raises:
        ExportError: ``onnx.checker`` refuses the model, or the folder cannot be written to.
    """
    size = sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value)
    data = f"{path.name}.data" if size > LARGE_BYTES else None
    try:
        with folder_beside(path) as folder:
            written = Path(folder) / path.name
            ir.save(model, written, external_data=data)
            onnx.checker.check_model(str(written), full_check=True)
            move(written, path)
    except OSError as error:
        raise ExportError(f"cannot write {path}: {error.strerror or error}") from error
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        said = str(error).strip().partition("\n")[0]
        raise ExportError(f"onnx.checker refuses the exported model: {said}") from error
    return path


def folder_beside(path: Path) -> tempfile.TemporaryDirectory[str]:
    """A folder for what is not finished yet, on the file system of ``path``; gone at the end of a ``with``.

    Raises:
        ExportError: there cannot be one.
    """
    try:
        return tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise ExportError(f"cannot write {path}: {error.strerror or error}") from error


def move(source: Path, target: Path) -> None:
    """Move a model, with its external data if it has any, over ``target`` on the same file system.

    Raises:
        ExportError: ``target`` cannot be replaced.
    """
    try:
        for suffix in (".data", ""):
            file = source.with_name(source.name + suffix)
            if file.exists():
                os.replace(file, target.with_name(target.name + suffix))
    except OSError as error:
        raise ExportError(f"cannot write {target}: {error.strerror or error}") from error


def output_names(path: Path) -> list[str]:
    """The names of the outputs of an ONNX file."""
    return [output.name for output in onnx.load(path, load_external_data=False).graph.output]
