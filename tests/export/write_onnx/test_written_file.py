"""Edited messages as files: the weights beside them, what would be overwritten, and what is not valid."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from blur_files import blur, external, image, message, node, write
from onnx import ModelProto

from export.read_onnx.model import OnnxModel, read_model
from export.runtime.files import size_of
from export.write_onnx.file import move_model
from export.write_onnx.written_file import copy_weights, require_free, weight_files, write_file
from fx_passes.errors import ExportError, LoadError, UsageError

DENSE = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)


def beside() -> ModelProto:
    """A blur, and a product with a dense matrix."""
    return message([blur(output="c"), node("MatMul", ["c", "dense"], ["y"])], {"dense": DENSE})


def with_weights(folder: Path, location: str = "w.bin") -> OnnxModel:
    folder.mkdir(exist_ok=True)
    return read_model(external(folder / "in.onnx", beside(), "dense", location=location))


def everything(folder: Path) -> dict[str, bytes]:
    """All files below a folder."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def in_body(tensor: onnx.TensorProto) -> ModelProto:
    """A model whose tensor is the value of a Constant in the body of an If."""
    made = node("Constant", [], ["v"], value=tensor)
    body = onnx.helper.make_graph([made], "body", [], [image("v", [64, 64])])
    chosen = node("If", ["yes"], ["dense"], then_branch=body, else_branch=body)
    nodes = [chosen, blur(output="c"), node("MatMul", ["c", "dense"], ["y"])]
    return message(nodes, {"yes": np.array(True)})


def test_the_files_of_weights(tmp_path: Path) -> None:
    """Each once, in the order of the graph, also those of constants in bodies."""
    model = with_weights(tmp_path)
    assert weight_files(model) == ["w.bin"]
    tensor = onnx.TensorProto()
    tensor.CopyFrom(model.graph.initializer[1])
    tensor.external_data[0].value = "weights/body.bin"
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "body.bin").write_bytes(DENSE.tobytes())
    assert weight_files(read_model(write(tmp_path / "body.onnx", in_body(tensor)))) == ["weights/body.bin"]
    assert weight_files(read_model(write(tmp_path / "none.onnx", beside()))) == []


@pytest.mark.parametrize("location", ["../w.bin", "weights/../../w.bin", "/etc/hostname", "link.bin"])
def test_weights_out_of_the_folder(location: str, tmp_path: Path) -> None:
    """A file names where its weights are. It must not name any file of the machine, not even by a link."""
    model = with_weights(tmp_path / "in")
    (tmp_path / "w.bin").write_bytes(DENSE.tobytes())
    (tmp_path / "in" / "link.bin").symlink_to(tmp_path / "w.bin")
    model.graph.initializer[1].external_data[0].value = location
    with pytest.raises(LoadError, match="outside of its folder"):
        weight_files(model)


def test_weights_that_are_missing(tmp_path: Path) -> None:
    """The error names model and file. A folder is no file."""
    model = with_weights(tmp_path)
    (tmp_path / "w.bin").unlink()
    for _ in range(2):
        with pytest.raises(LoadError, match=r"in\.onnx: its weights are in w\.bin, which is missing"):
            copy_weights(model, tmp_path)
        (tmp_path / "w.bin").mkdir(exist_ok=True)


@pytest.mark.parametrize("location", ["w.bin", "weights/of all/w.bin"])
def test_weights_are_copied(location: str, tmp_path: Path) -> None:
    """No link is made: onnx loads no weights from a file with two names, and that includes the original."""
    model, out = with_weights(tmp_path / "in", location), tmp_path / "out" / "out.onnx"
    out.parent.mkdir()
    write_file(model.proto, out, model)
    for path in (model.path, out):
        file = path.parent / location
        assert file.stat().st_nlink == 1
        assert not file.is_symlink()
        loaded = onnx.load(path).graph.initializer[1]
        np.testing.assert_array_equal(onnx.numpy_helper.to_array(loaded), DENSE)


def test_weights_that_are_there_already(tmp_path: Path) -> None:
    """The same folder, or a copy in another folder: nothing is in the way, and nothing is replaced."""
    model, out = with_weights(tmp_path / "in"), tmp_path / "out"
    out.mkdir()
    (out / "w.bin").write_bytes(DENSE.tobytes())
    for target in (model.path.parent / "out.onnx", out / "out.onnx"):
        made = tmp_path / "made" / "out.onnx"
        made.parent.mkdir(exist_ok=True)
        require_free(model, target)
        number = (target.parent / "w.bin").stat().st_ino
        write_file(model.proto, made, model)
        move_model(made, target, weight_files(model))
        assert (target.parent / "w.bin").stat().st_ino == number
        assert target.exists()


@pytest.mark.parametrize("theirs", [b"other numbers", bytes(DENSE.nbytes), None])
def test_another_file_of_that_name(theirs: bytes | None, tmp_path: Path) -> None:
    """It is in the way, also if it is as long as ours, and also if it is a folder."""
    model, out = with_weights(tmp_path / "in"), tmp_path / "out"
    out.mkdir()
    if theirs is None:
        (out / "w.bin").mkdir()
    else:
        (out / "w.bin").write_bytes(theirs)
    with pytest.raises(UsageError, match=r"w\.bin, which is another file; choose another folder"):
        require_free(model, out / "out.onnx")


def test_an_output_that_would_be_the_weights(tmp_path: Path) -> None:
    """Those that are read, and those that are about to be written beside the output."""
    model = with_weights(tmp_path / "in")
    (tmp_path / "out").mkdir()
    for folder in ("in", "out"):
        with pytest.raises(UsageError, match="would overwrite the weights of the model that is read"):
            require_free(model, tmp_path / folder / "w.bin")


def test_a_new_model_replaces_the_weights_of_the_old_one(tmp_path: Path) -> None:
    """A torch model is exported again under the same name, with other weights."""
    model = with_weights(tmp_path / "in")
    target = tmp_path / "out.onnx"
    target.write_bytes(b"old")
    (tmp_path / "w.bin").write_bytes(b"old weights")
    move_model(model.path, target, ["w.bin"])
    assert target.read_bytes() == write(tmp_path / "expected", model.proto).read_bytes()
    assert (tmp_path / "w.bin").read_bytes() == DENSE.tobytes()
    assert everything(tmp_path / "in") == {}


def test_what_the_checker_refuses(tmp_path: Path) -> None:
    """The result is refused, unless the original is no better."""
    good = read_model(write(tmp_path / "good.onnx", beside()))
    bad = beside()
    bad.graph.node[1].input[0] = "nobody"
    with pytest.raises(ExportError, match=r"onnx\.checker refuses the rewritten model: .*nobody"):
        write_file(bad, tmp_path / "out.onnx", good)
    write_file(bad, tmp_path / "out.onnx", read_model(write(tmp_path / "bad.onnx", bad)))


def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    """One line for the user, with the path and the reason."""
    model = with_weights(tmp_path / "in")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ExportError, match=r"^cannot write .*file/"):
        write_file(model.proto, tmp_path / "file" / "out.onnx", model)
    with pytest.raises(ExportError, match=r"^cannot write .*file/"):
        move_model(model.path, tmp_path / "file" / "out.onnx", ["w.bin"])
    assert sorted(os.listdir(tmp_path / "in")) == ["in.onnx", "w.bin"]


@pytest.mark.parametrize("location", ["out.onnx.data", "w.bin", "weights/w"])
def test_weights_count_under_any_name(location: str, tmp_path: Path) -> None:
    """The bytes of a model are those of its file and of its weights. Other files do not count."""
    model = with_weights(tmp_path, location)
    assert size_of(model.path) == model.path.stat().st_size + DENSE.nbytes
    alone = write(tmp_path / "alone.onnx", beside())
    assert size_of(alone) == alone.stat().st_size
