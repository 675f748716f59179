"""Shapes that a file states and does not have: one run tells."""

from __future__ import annotations

from pathlib import Path

import onnx.helper as oh
import pytest
from blur_files import X, blur, lowered, message, node, require_same_outputs, static, write
from onnx import ModelProto, TensorProto

from export.read_onnx.model import read_model
from export.read_onnx.seen_shapes import wrong_shape
from export.read_onnx.sites import analyse


def stating(shapes: dict[str, list[int | str]]) -> ModelProto:
    """A blur between two operators, and the shapes that the file states of the values between."""
    nodes = [node("Abs", ["x"], ["a"]), blur(source="a", output="c"), node("Neg", ["c"], ["y"])]
    model = message(nodes)
    for name, shape in shapes.items():
        model.graph.value_info.append(oh.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    return model


def wrong(model: ModelProto, path: Path) -> str | None:
    return wrong_shape(analyse(read_model(write(path, model))), [[X]])


def test_shapes_that_are_right(tmp_path: Path) -> None:
    """Nothing is said."""
    assert wrong(stating({"a": [1, 3, 64, 64], "c": ["n", 3, "h", "h"]}), tmp_path / "m.onnx") is None


@pytest.mark.parametrize("shapes", [{"a": [1, 3, 60, 64]}, {"a": ["n", "n", 64, 64]}], ids=str)
def test_shapes_that_are_wrong(shapes: dict[str, list[int | str]], tmp_path: Path) -> None:
    """Another size, or two sizes of one name: the value is named, with both shapes."""
    said = wrong(stating({"a": [1, 3, 64, 64], "c": [1, 3, 64, 64], **shapes}), tmp_path / "m.onnx")
    assert said is not None
    assert f"`{next(iter(shapes))}`" in said
    assert said.endswith("and is [1, 3, 64, 64]")


def test_a_batch_that_was_opened_later(tmp_path: Path) -> None:
    """Tools open the batch of the input, and leave the shapes behind it. With the batch of the example they
    are right; with others they are not."""
    model = stating({"a": [1, 3, 64, 64], "c": [1, 3, 64, 64]})
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_param = "n"
    path, out = write(tmp_path / "m.onnx", model), tmp_path / "out.onnx"
    assert lowered(static(path, out, X)) == 1
    require_same_outputs(path, out, X)
    require_same_outputs(path, out, X.repeat(3, axis=0))


def test_a_wrong_size_is_not_believed(tmp_path: Path) -> None:
    """The site is lowered as without it."""
    path, out = write(tmp_path / "m.onnx", stating({"a": [1, 3, 60, 64]})), tmp_path / "out.onnx"
    report = static(path, out, X)
    assert lowered(report) == 1
    assert report.equivalence.passed
