"""Writes an edited ONNX message as a file, with copies of the files of weights of the original beside it."""

from __future__ import annotations

import filecmp
import shutil
from collections.abc import Iterator
from pathlib import Path

import onnx
from onnx import GraphProto, ModelProto, TensorProto

from export.read_onnx.model import OnnxModel, bodies
from fx_passes.errors import ExportError, LoadError, UsageError, one_line

_REFUSALS = (onnx.checker.ValidationError, onnx.shape_inference.InferenceError)


def write_file(proto: ModelProto, path: Path, original: OnnxModel) -> None:
    """Write ``proto`` to ``path``, with the files of weights of the original beside it.

    Raises:
        ExportError: ``onnx.checker`` refuses the result, and does not refuse the original; or the folder
            cannot be written to.
    """
    copy_weights(original, path.parent)
    try:
        path.write_bytes(proto.SerializeToString())
        onnx.checker.check_model(str(path), full_check=True)
    except _REFUSALS as error:
        if _is_valid(original.path):
            raise ExportError(f"onnx.checker refuses the rewritten model: {one_line(error)}") from error
    except OSError as error:
        raise ExportError(f"cannot write {path}: {error.strerror or error}") from error


def _is_valid(path: Path) -> bool:
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except _REFUSALS:
        return False
    return True


def copy_weights(model: OnnxModel, folder: Path) -> None:
    """Put copies of the files of weights of ``model`` into ``folder``. A file that is there stays.

    Links would save space. But onnx loads no weights from a file with a second name, hard link or symbolic.

    Raises:
        LoadError: a file is missing, or is not below the folder of the model.
        ExportError: the folder cannot be written to.
    """
    for location in weight_files(model):
        target = folder / location
        if target.exists():
            continue
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(model.path.parent / location, target)
        except OSError as error:
            raise ExportError(f"cannot write {target}: {error.strerror or error}") from error


def require_free(model: OnnxModel, path: Path) -> None:
    """Refuse to write a model to ``path`` if it or its files of weights would replace other files there.

    Raises:
        UsageError: they would.
        LoadError: a file of weights is missing, or is not below the folder of the model.
    """
    for location in weight_files(model):
        ours, theirs = model.path.parent / location, path.parent / location
        if path.resolve() in (ours.resolve(), theirs.resolve()):
            raise UsageError(f"{path} would overwrite the weights of the model that is read")
        if theirs.exists() and not (theirs.samefile(ours) or filecmp.cmp(ours, theirs, shallow=False)):
            said = f"{path} needs its weights in {theirs}, which is another file"
            raise UsageError(f"{said}; choose another folder")


def weight_files(model: OnnxModel) -> list[str]:
    """The files with weights, relative to the folder of the model.

    Raises:
        LoadError: a file is missing, or is not below the folder of the model.
    """
    found = dict.fromkeys(
        entry.value
        for tensor in _tensors(model.graph)
        for entry in tensor.external_data
        if entry.key == "location"
    )
    home = model.path.parent.resolve()
    for location in found:
        file = (home / location).resolve()
        if not file.is_relative_to(home):
            raise LoadError(f"{model.path}: its weights are in {location}, outside of its folder")
        if not file.is_file():
            raise LoadError(f"{model.path}: its weights are in {location}, which is missing")
    return list(found)


def _tensors(graph: GraphProto) -> Iterator[TensorProto]:
    """Every tensor that a graph stores."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
        for body in bodies(node):
            yield from _tensors(body)
