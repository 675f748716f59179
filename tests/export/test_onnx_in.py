"""``optimize`` of an ONNX file: what it changes, what it leaves alone, and what it refuses."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from blur_files import X, blur, external, lowered, message, node, require_same_outputs, static, write
from onnx import ModelProto, TensorProto
from onnx.numpy_helper import to_array
from planted import plant, spoil
from rich_onnx import INPUTS, LOWERED, require_kept, rich_model

from fx_passes.errors import LoadError, NotEquivalentError, UsageError

DENSE = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)


def everything(folder: Path) -> dict[str, bytes]:
    """All files below a folder."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def beside(*, shared: bool = True) -> ModelProto:
    """A blur, or another convolution that has no groups, and a product with a dense matrix."""
    first = blur(output="c") if shared else node("Conv", ["x", "dense kernel"], ["c"], pads=[1] * 4)
    kernel = np.random.default_rng(1).standard_normal((3, 3, 3, 3)).astype(np.float32)
    return message([first, node("MatMul", ["c", "dense"], ["y"])], {"dense": DENSE, "dense kernel": kernel})


@pytest.mark.slow
def test_a_rich_model(tmp_path: Path) -> None:
    """Everything that is not part of the site has the bytes that it had."""
    before = rich_model(runs=True)
    path, out = write(tmp_path / "in.onnx", before), tmp_path / "out.onnx"
    assert lowered(static(path, out, *INPUTS)) == 1
    require_kept(before, onnx.load(out), LOWERED)
    require_same_outputs(path, out, *INPUTS)
    assert path.read_bytes() == before.SerializeToString()


@pytest.mark.parametrize("folder", [".", "elsewhere"])
@pytest.mark.parametrize("weights", [(), ("dense",), ("dense", "dense kernel")])
def test_nothing_to_do(weights: tuple[str, ...], folder: str, tmp_path: Path) -> None:
    """The output is the input, byte for byte, also where a tool would write it in another way. Weights in
    another file are there as well."""
    path = external(tmp_path / "in.onnx", beside(shared=False), *weights)
    # A field that this version of onnx does not know.
    path.write_bytes(path.read_bytes() + b"\xf2\x3e\x03abc")
    (tmp_path / folder).mkdir(exist_ok=True)
    before, out = everything(tmp_path), tmp_path / folder / "out.onnx"
    report = static(path, out, X)
    assert (report.shared_count, report.equivalence.passed) == (0, True)
    made = everything(out.parent)
    assert made.pop("out.onnx") == before["in.onnx"]
    assert made == {name: before[name] for name in before if folder == "." or name != "in.onnx"}
    assert {name: everything(tmp_path)[name] for name in before} == before
    require_same_outputs(path, out)


def test_a_shared_kernel_that_is_best_left_alone(tmp_path: Path) -> None:
    """Too little work for a lowering, and too few numbers to store them once: a copy of the input as well."""
    tiny = np.tile(np.ones((1, 1, 2, 2), np.float32), (3, 1, 1, 1))
    nodes = [node("Conv", ["x", "tiny"], ["c"], group=3, pads=[0, 0, 1, 1]), node("Relu", ["c"], ["y"])]
    path, out = write(tmp_path / "in.onnx", message(nodes, {"tiny": tiny})), tmp_path / "out.onnx"
    report = static(path, out)
    assert (report.shared_count, lowered(report)) == (1, 0)
    assert out.read_bytes() == path.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("folder", [".", "elsewhere"])
@pytest.mark.parametrize("weights", [("dense",), ("dense", "k")])
def test_weights_in_another_file(weights: tuple[str, ...], folder: str, tmp_path: Path) -> None:
    """What is said of the others stays: the file, the offset, the length. Both models can be loaded."""
    path = external(tmp_path / "in.onnx", beside(), *weights)
    (tmp_path / folder).mkdir(exist_ok=True)
    before, out = everything(tmp_path), tmp_path / folder / "out.onnx"
    assert lowered(static(path, out)) == 1
    for name in ("dense", "dense kernel"):
        assert stored(out)[name] == stored(path)[name]
    assert {name: everything(tmp_path)[name] for name in before} == before
    assert sorted(everything(out.parent).keys() | {"in.onnx"}) == sorted({*before, "out.onnx"})
    require_same_outputs(path, out)
    for model in (path, out):
        tensors = {tensor.name: tensor for tensor in onnx.load(model).graph.initializer}
        np.testing.assert_array_equal(to_array(tensors["dense"]), DENSE)


def stored(path: Path) -> dict[str, TensorProto]:
    """The initializers, without the numbers that are in another file."""
    return {tensor.name: tensor for tensor in onnx.load(path, load_external_data=False).graph.initializer}


def refuse(path: Path, out: Path, error: type[Exception], said: str) -> None:
    """The job is refused, and no file has changed or is new."""
    before = everything(path.parent)
    with pytest.raises(error, match=said):
        static(path, out)
    assert everything(path.parent) == before


def test_refused_before_anything_is_written(tmp_path: Path) -> None:
    """Weights that would be in the way of others, that are missing, or that are not below the model."""
    path, elsewhere = external(tmp_path / "in.onnx", beside(), "dense"), tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "w.bin").write_bytes(b"other weights")
    refuse(path, elsewhere / "out.onnx", UsageError, "which is another file; choose another folder")
    (elsewhere / "in.onnx").write_bytes(path.read_bytes().replace(b"w.bin", b"../wb"))
    (tmp_path / "wb").write_bytes((tmp_path / "w.bin").read_bytes())
    refuse(elsewhere / "in.onnx", tmp_path / "out.onnx", LoadError, "outside of its folder")
    (tmp_path / "w.bin").unlink()
    refuse(path, tmp_path / "out.onnx", LoadError, r"weights are in w\.bin, which is missing")


@pytest.mark.parametrize("name", ["in.onnx", "folder/../in.onnx", "link.onnx", "w.bin"])
def test_an_output_over_the_input(name: str, tmp_path: Path) -> None:
    """However the path is written, and be it the file of weights."""
    path = external(tmp_path / "in.onnx", beside(), "dense")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link.onnx").symlink_to(path)
    refuse(path, tmp_path / name, UsageError, "would overwrite")


@pytest.mark.slow
@pytest.mark.parametrize("existing", [False, True])
def test_a_wrong_file_is_not_written(existing: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that fails leaves nothing behind, and an earlier output as it was."""
    path, out = external(tmp_path / "in.onnx", beside(), "dense"), tmp_path / "out.onnx"
    if existing:
        out.write_bytes(b"an earlier one")
    plant(monkeypatch, lambda model, places: spoil(model, places[0], 1e-3))
    refuse(path, out, NotEquivalentError, "caused by site")
    (tmp_path / "elsewhere").mkdir()
    refuse(path, tmp_path / "elsewhere" / "out.onnx", NotEquivalentError, "caused by site")
    assert os.listdir(tmp_path / "elsewhere") == []
