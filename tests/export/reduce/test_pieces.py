"""Pieces of a graph run, and compute what the graph computes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx.helper as oh
import pytest
from onnx import TensorProto
from onnx.numpy_helper import from_array, to_array

from export.read_onnx.model import OnnxModel, read_model
from export.reduce.pieces import Pieces
from export.reduce.values import Values, load_values, record
from export.runtime.session import open_session, run
from fx_passes.errors import ExportError

node = oh.make_node
X = np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32)


def graph(folder: Path) -> OnnxModel:
    """y = relu(x * (2 * stored)) in the shape (-1, 4); at the end a choice between bodies that read it."""
    branch = oh.make_tensor_value_info("t", TensorProto.FLOAT, None)
    bodies = {
        f"{name}_branch": oh.make_graph([node(op, ["y"], ["t"])], name, [], [branch])
        for name, op in (("then", "Neg"), ("else", "Abs"))
    }
    nodes = [
        node("Add", ["stored", "stored"], ["twice"], name="constant"),
        node("Mul", ["x", "twice"], ["a"], name="mul"),
        node("Shape", ["a"], ["shape"], name="shape", start=-1),
        node("Concat", ["any", "shape"], ["sizes"], name="sizes", axis=0),
        node("Relu", ["a"], ["b"], name="relu"),
        node("Reshape", ["b", "sizes"], ["y"], name="reshape"),
        node("If", ["yes"], ["z"], name="if", **bodies),
        node("Neg", ["a"], ["unread"], name="unread"),
    ]
    stored = {"stored": np.float32(1.5), "any": np.array([-1]), "yes": np.array(True)}
    made = oh.make_graph(
        nodes,
        "g",
        [oh.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 4])],
        [oh.make_tensor_value_info("z", TensorProto.FLOAT, None)],
        [from_array(np.asarray(array), name) for name, array in stored.items()],
    )
    path = folder / "whole.onnx"
    onnx.save(oh.make_model(made, opset_imports=[oh.make_opsetid("", 18)], ir_version=8), path)
    return read_model(path)


def pieces(folder: Path, *, fixed: bool = True) -> Pieces:
    model = graph(folder)
    return Pieces(model, record(model, [X]), fixed=fixed)


def test_what_is_recorded(tmp_path: Path) -> None:
    """Every shape and type; numbers only of what follows from constants, and of integers and decisions."""
    values = record(graph(tmp_path), [X])
    assert values.shapes == {
        "x": (2, 3, 4), "twice": (), "a": (2, 3, 4), "shape": (1,), "sizes": (2,), "b": (2, 3, 4),
        "y": (6, 4), "z": (6, 4), "unread": (2, 3, 4),
    }  # fmt: skip
    assert set(values.types.values()) == {"float32", "int64"}
    assert {name: array.tolist() for name, array in values.numbers.items()} == {
        "twice": 3.0, "shape": [4], "sizes": [-1, 4],
    }  # fmt: skip
    values.save(tmp_path / "values.npz")
    again = load_values(tmp_path / "values.npz")
    assert (again.shapes, again.types) == (values.shapes, values.types)
    assert {n: a.tolist() for n, a in again.numbers.items()} == {
        n: a.tolist() for n, a in values.numbers.items()
    }


@pytest.mark.parametrize(
    ("nodes", "inputs", "stored", "outputs"),
    [
        ([1], ["x"], ["twice"], ["a"]),
        ([4, 5], ["a"], ["sizes"], ["y"]),
        ([1, 5], ["b", "x"], ["sizes", "twice"], ["a", "y"]),
        ([6], ["y"], ["yes"], ["z"]),
        ([0, 1], ["x"], ["stored"], ["a"]),
        ([7], ["a"], [], ["unread"]),
        (range(8), ["x"], ["any", "stored", "yes"], ["z", "unread"]),
    ],
)
def test_a_piece(
    nodes: Sequence[int], inputs: list[str], stored: list[str], outputs: list[str], tmp_path: Path
) -> None:
    """It has these nodes. What it reads is an input or a constant. It computes what the whole computes."""
    whole = pieces(tmp_path)
    shapes = whole.write(tuple(nodes), tmp_path / "piece.onnx")
    piece = onnx.load(tmp_path / "piece.onnx").graph
    assert [one.name for one in piece.node] == [whole.model.graph.node[i].name for i in nodes]
    assert sorted(value.name for value in piece.input) == inputs == sorted(shapes)
    assert sorted(tensor.name for tensor in piece.initializer) == stored
    assert [value.name for value in piece.output] == outputs
    session = open_session(tmp_path / "piece.onnx")
    every = {**everything(whole.model), "x": X}
    found = run(session, [every[slot.name] for slot in session.get_inputs()])
    for name, array in zip(outputs, found, strict=True):
        np.testing.assert_array_equal(array, every[name])


def everything(model: OnnxModel) -> dict[str, np.ndarray]:
    """All values of the whole."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    names = [name for one in proto.graph.node for name in one.output]
    del proto.graph.output[:]
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    found = run(open_session(proto.SerializeToString()), [X])
    return dict(zip(names, found, strict=True))


@pytest.mark.parametrize(("fixed", "sizes"), [(True, [2, 3, 4]), (False, ["n", 3, 4])])
def test_sizes_are_those_of_the_example_or_of_the_file(
    fixed: bool, sizes: list[int | str], tmp_path: Path
) -> None:
    """Fixed sizes need no ``--input``; open ones may be what shows the failure."""
    shapes = pieces(tmp_path, fixed=fixed).write((1,), tmp_path / "piece.onnx")
    (value,) = onnx.load(tmp_path / "piece.onnx").graph.input
    found = [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
    assert (found, shapes) == (sizes, {"x": (2, 3, 4)})


def test_the_constants_have_their_numbers(tmp_path: Path) -> None:
    """A size that is cut is what it was."""
    pieces(tmp_path).write((5,), tmp_path / "piece.onnx")
    (sizes,) = onnx.load(tmp_path / "piece.onnx").graph.initializer
    assert to_array(sizes).tolist() == [-1, 4]


@pytest.mark.parametrize(
    ("dtype", "kept"),
    [("UINT8", False), ("INT8", False), ("INT16", False), ("BOOL", True), ("INT32", True), ("INT64", True)],
)
def test_integers_that_are_data(dtype: str, kept: bool, tmp_path: Path) -> None:
    """Pixels and quantised activations are inputs where they are cut, not constants."""
    to = getattr(TensorProto, dtype)
    nodes = [
        node("Cast", ["x"], ["data"], to=to),
        node("Cast", ["stored"], ["constant"], to=to),
        node("Cast", ["data"], ["y"], to=TensorProto.FLOAT),
        node("Cast", ["constant"], ["z"], to=TensorProto.FLOAT),
    ]
    x, *ends = (oh.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "xyz")
    made = oh.make_graph(nodes, "g", [x], ends, [from_array(np.ones(2, np.float32), "stored")])
    onnx.save(oh.make_model(made, opset_imports=[oh.make_opsetid("", 18)], ir_version=8), tmp_path / "a.onnx")
    model = read_model(tmp_path / "a.onnx")
    values = record(model, [X[0, 0, :2]])
    assert set(values.numbers) == {"constant", "z", *(["data"] if kept else [])}
    Pieces(model, values, fixed=True).write((2,), tmp_path / "piece.onnx")
    inputs = [value.name for value in onnx.load(tmp_path / "piece.onnx").graph.input]
    assert inputs == ([] if kept else ["data"])


def test_where_nothing_is_known(tmp_path: Path) -> None:
    """The original could not run. Then a piece can begin where types and shapes can be inferred."""
    unknown = Pieces(graph(tmp_path), Values(), fixed=True)
    unknown.write((4,), tmp_path / "piece.onnx")
    assert [value.name for value in onnx.load(tmp_path / "piece.onnx").graph.input] == ["a"]
    unknown = Pieces(graph(tmp_path), Values(types={"another": "float32"}), fixed=True)
    with pytest.raises(ExportError, match="no piece can begin at `y`: its type or its shape is not known"):
        unknown.write((6,), tmp_path / "other.onnx")
    assert not (tmp_path / "other.onnx").exists()
