"""Types and shapes of the values of a graph: as far as they are said to be known, they are true."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx.helper as oh
import pytest
import torch
from onnx import NodeProto, TensorProto
from onnx_graphs import computed, model_of, small_integers

from export.read_onnx.model import OnnxModel
from export.read_onnx.types import DTYPES, ValueType, value_types

FLOAT = TensorProto.FLOAT
STORED = {
    "w": small_integers(3, 1, 3, 3),
    "pixels": np.ones((1, 3, 6, 8), np.float32),
    "two": np.array([2]),
    "three": np.array([3]),
    "rest": np.array([-1]),
    "half": np.array([1, 1, 0.5, 0.5], np.float32),
}
# A shape that is computed, a broadcast, and a Resize, as exporters write them.
NODES: list[NodeProto] = [
    oh.make_node("Conv", ["x", "w"], ["a"], group=3, pads=[1, 1, 1, 1]),
    oh.make_node("Relu", ["a"], ["b"]),
    oh.make_node("Add", ["b", "pixels"], ["c"]),
    oh.make_node("Shape", ["c"], ["shape"]),
    oh.make_node("Slice", ["shape", "two", "three"], ["height"]),
    oh.make_node("Concat", ["three", "height", "rest"], ["sizes"], axis=0),
    oh.make_node("Reshape", ["c", "sizes"], ["d"]),
    oh.make_node("Resize", ["c", "", "half"], ["e"], mode="nearest"),
    oh.make_node("Split", ["e"], ["f", "g"], axis=3, num_outputs=2),
    oh.make_node("Conv", ["f", "w"], ["y"], group=3, strides=[2, 2], auto_pad="SAME_UPPER"),
]
MADE = [name for node in NODES for name in node.output]


def require_true(types: Mapping[str, ValueType], names: list[str], model: OnnxModel, x: np.ndarray) -> None:
    """What is known holds in a run on ``x``. An open size of the input has one value everywhere."""
    sizes = dict(zip(types["x"].shape, x.shape, strict=True))
    for name, array in zip(names, computed(model, x), strict=True):
        assert name in types
        assert torch.from_numpy(array).dtype == types[name].dtype
        assert len(types[name].shape) == array.ndim
        for said, size in zip(types[name].shape, array.shape, strict=True):
            assert said == size if isinstance(said, int) else sizes.get(said, size) == size


@pytest.mark.parametrize("opset", [18, 21])
def test_sizes_that_are_all_known(opset: int) -> None:
    """Every value then has the shape that it has in a run."""
    x = small_integers(2, 3, 6, 8)
    model = model_of(NODES, {"x": x}, STORED, outputs=MADE, opset=opset)
    types = value_types(model, MADE)
    require_true(types, MADE, model, x)
    assert all(types[name].static is not None for name in ("x", "w", *MADE))


@pytest.mark.parametrize("sizes", [(2, 3, 6, 8), (1, 3, 6, 8), (1, 3, 1, 8), (3, 3, 1, 1)])
def test_sizes_that_are_open(sizes: tuple[int, ...]) -> None:
    """Nothing is said that is wrong for some input; a size of 1 is broadcast where others are not."""
    model = model_of(NODES, {"x": (FLOAT, ["batch", 3, "height", "width"])}, STORED, outputs=MADE)
    types = value_types(model, MADE)
    require_true(types, MADE, model, small_integers(*sizes))
    assert types["b"] == ValueType(torch.float32, ("batch", 3, "height", "width"))
    assert types["x"].static is None


def test_what_the_file_states() -> None:
    """Inputs, outputs, initializers and values; a size is a number, a name, or nothing."""
    model = model_of([oh.make_node("Relu", ["x"], ["y"])], {"x": (FLOAT, ["n", 3, None])}, {"w": STORED["w"]})
    model.graph.value_info.append(oh.make_tensor_value_info("between", TensorProto.FLOAT16, [2, None]))
    model.graph.output[0].CopyFrom(oh.make_tensor_value_info("y", FLOAT, ["n", 3, "m"]))
    assert value_types(model, ["x", "y", "w", "between"]) == {
        "x": ValueType(torch.float32, ("n", 3, None)),
        "y": ValueType(torch.float32, ("n", 3, "m")),
        "w": ValueType(torch.float32, (3, 1, 3, 3)),
        "between": ValueType(torch.float16, (2, None)),
    }


def test_nothing_is_inferred_that_is_not_wanted() -> None:
    """Inference takes time."""
    model = model_of(NODES, {"x": small_integers(2, 3, 6, 8)}, STORED)
    assert "a" not in value_types(model, ["x", "w"])
    assert "a" in value_types(model, ["y"])


def test_a_statement_is_kept() -> None:
    """The file may know more than an inference can: here, what an unknown operator gives."""
    nodes = [
        oh.make_node("Secret", ["x"], ["s"], domain="com.example"),
        oh.make_node("Relu", ["s"], ["r"]),
        oh.make_node("Secret", ["r"], ["y"], domain="com.example"),
    ]
    model = model_of(nodes, {"x": (FLOAT, [1, 2])}, domains=["com.example"])
    model.graph.value_info.append(oh.make_tensor_value_info("s", FLOAT, [5, "k"]))
    types = value_types(model, ["y"])
    assert types["s"] == types["r"] == ValueType(torch.float32, (5, "k"))
    assert "y" not in types


@pytest.mark.parametrize("kind", ["no shape", "a wrong graph"])
def test_an_inference_that_fails(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then less is known. Nothing is raised, and no file is written."""
    monkeypatch.chdir(tmp_path)
    where = "x" if kind == "no shape" else "w"
    nodes = [oh.make_node("NonZero", ["x"], ["places"]), oh.make_node("Reshape", ["x", where], ["y"])]
    model = model_of(nodes, {"x": (FLOAT, ["n", "m"])}, {"w": STORED["w"]}, outputs=("places", "y"))
    assert value_types(model, ["y"])["x"] == ValueType(torch.float32, ("n", "m"))
    assert list(tmp_path.iterdir()) == []


def test_the_file_is_not_changed() -> None:
    """Inference works on a copy, in which large weights are inputs: of these only the shape is read."""
    large = small_integers(64, 3, 5, 5)
    nodes = [oh.make_node("Conv", ["x", "large"], ["y"]), oh.make_node("Neg", ["large"], ["z"])]
    model = model_of(nodes, {"x": (FLOAT, [1, 3, 9, 9])}, {"large": large}, outputs=("y", "z"))
    before = model.proto.SerializeToString(deterministic=True)
    types = value_types(model, ["y", "z"])
    assert (types["y"].static, types["z"].static) == ((1, 64, 5, 5), large.shape)
    assert model.proto.SerializeToString(deterministic=True) == before


def test_element_types() -> None:
    """Those that torch has are named; a value of texts or of a sequence is left out."""
    for element, dtype in DTYPES.items():
        model = model_of([], {"x": (element, [1])})
        assert value_types(model, ["x"])["x"].dtype == dtype
    model = model_of([], {"x": (TensorProto.STRING, [1])})
    model.graph.input.append(oh.make_tensor_sequence_value_info("s", FLOAT, [1]))
    model.graph.input.append(onnx.ValueInfoProto(name="nothing"))
    assert value_types(model, ["x"]) == {}
