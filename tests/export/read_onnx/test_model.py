"""Reading an ONNX file: one clear line where it cannot be read, and facts about its main graph."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx.helper as oh
import pytest
from onnx import GraphProto, ModelProto, NodeProto, TensorProto
from onnx.helper import make_node as node
from onnx_graphs import model_of

from export.read_onnx.model import OLDEST_OPSET, bodies, outer_names, read_by, read_model
from fx_passes.errors import LoadError

X = np.zeros((1, 2), np.float32)


def require_refused(path: Path, said: str) -> None:
    """The file is refused in one line with its name."""
    with pytest.raises(LoadError, match=said) as error:
        read_model(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_missing(tmp_path: Path) -> None:
    """A folder is no file either."""
    require_refused(tmp_path / "none.onnx", "no such file")
    require_refused(tmp_path, "no such file")


@pytest.mark.parametrize("name", ["model.onnx", "model.json", "model.textproto", "model"])
@pytest.mark.parametrize(
    "content", [b"A few words.\nNo model.\n", bytes(range(256)), b"PK\x03\x04 and so on"]
)
def test_a_file_of_another_kind(content: bytes, name: str, tmp_path: Path) -> None:
    """Whatever its name ends with."""
    (tmp_path / name).write_bytes(content)
    require_refused(tmp_path / name, "cannot be read as an ONNX file|holds no ONNX graph")


def test_a_file_that_is_cut_off(tmp_path: Path) -> None:
    """As after an interrupted download."""
    whole = model_of([node("Relu", ["x"], ["y"])], {"x": X}, {"w": np.zeros(999)}).proto.SerializeToString()
    (tmp_path / "model.onnx").write_bytes(whole[: len(whole) // 2])
    require_refused(tmp_path / "model.onnx", "cannot be read as an ONNX file")


def test_a_file_without_a_graph(tmp_path: Path) -> None:
    """An empty file is a valid message without anything in it; one may also have a version, and no graph."""
    (tmp_path / "empty.onnx").touch()
    require_refused(tmp_path / "empty.onnx", "holds no ONNX graph")
    (tmp_path / "none.onnx").write_bytes(ModelProto(ir_version=8).SerializeToString())
    require_refused(tmp_path / "none.onnx", "holds no ONNX graph")


def test_operators_that_are_too_old(tmp_path: Path) -> None:
    """The message says which are needed, and what converts a file."""
    for opset in (OLDEST_OPSET - 1, OLDEST_OPSET):
        onnx.save(
            model_of([node("Relu", ["x"], ["y"])], {"x": X}, opset=opset).proto, tmp_path / f"{opset}.onnx"
        )
    require_refused(tmp_path / "10.onnx", "uses opset 10; opset 11 or newer is needed: .*version_converter")
    assert read_model(tmp_path / "11.onnx").opset == 11


def test_a_file_of_other_operators_only(tmp_path: Path) -> None:
    """It needs no version of the standard ones."""
    model = model_of([node("Secret", ["x"], ["y"], domain="own")], {"x": X}, domains=["own"])
    del model.proto.opset_import[0]
    onnx.save(model.proto, tmp_path / "model.onnx")
    assert read_model(tmp_path / "model.onnx").opset == 0


def test_weights_in_another_file_are_not_needed(tmp_path: Path) -> None:
    """They are read when they are asked for."""
    proto = model_of([node("Add", ["x", "w"], ["y"])], {"x": X}, {"w": X}).proto
    onnx.save(proto, tmp_path / "model.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    (tmp_path / "w.bin").unlink()
    assert list(read_model(tmp_path / "model.onnx").stored) == ["w"]


def graph(nodes: list[NodeProto], inputs: tuple[str, ...] = (), stored: tuple[str, ...] = ()) -> GraphProto:
    """The body of a node. It gives the last value that it computes, or ``outer``."""
    last = nodes[-1].output[0] if nodes else "outer"
    made = [oh.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in (*inputs, last)]
    return oh.make_graph(
        nodes, "body", made[:-1], made[-1:], [oh.make_tensor(n, 1, [1], [0.0]) for n in stored]
    )


def choice(output: str, then: GraphProto, otherwise: GraphProto) -> NodeProto:
    return node("If", ["condition"], [output], then_branch=then, else_branch=otherwise)


def test_what_bodies_take_from_outside() -> None:
    """Not what they make or store themselves, however deep they lie."""
    inner = choice("i", graph([node("Mul", ["own", "x"], ["m"])]), graph([node("Neg", ["deep"], ["n"])]))
    then = graph([node("Add", ["x", "w"], ["own"]), inner], stored=("w",))
    outer = choice("y", then, graph([]))
    assert Counter(read_by(outer)) == Counter(["condition", "condition", "x", "x", "deep", "outer"])
    assert len(list(bodies(outer))) == 2


def test_names_that_a_body_has_again() -> None:
    """A value that is made later in a body is another one than the value of that name outside."""
    body = graph([node("Neg", ["x"], ["t"]), node("Add", ["t", "step"], ["out"])], inputs=("step",))
    assert outer_names(body) == ["x"]


def test_reads() -> None:
    """Each read counts: twice by one node, and in a body. An input that is left out is none."""
    nodes = [
        node("Relu", ["x"], ["a"]),
        node("Mul", ["a", "a"], ["b"]),
        node("Clip", ["b", "", "a"], ["c"]),
        choice("d", graph([node("Neg", ["a"], ["n"])]), graph([node("Abs", ["c"], ["m"])])),
    ]
    model = model_of(nodes, {"x": X, "condition": np.array(True)}, outputs=("d", "a"))
    read = Counter(name for made in model.graph.node for name in read_by(made))
    assert read == Counter({"x": 1, "a": 4, "b": 1, "c": 1, "condition": 1})
    assert {name: made.op_type for name, made in model.producers.items()} == {
        "a": "Relu",
        "b": "Mul",
        "c": "Clip",
        "d": "If",
    }


def test_inputs_and_constants() -> None:
    """An initializer that is an input is the default of that input: it is neither."""
    model = model_of([node("Sum", ["x", "d", "w"], ["y"])], {"x": X, "d": X}, {"d": X, "w": X})
    assert list(model.inputs) == ["x"]
    assert list(model.stored) == ["w"]


def test_standard_operators() -> None:
    """By their domain, unless the model defines one of that name itself."""
    own = oh.make_function("", "Relu", ["a"], ["b"], [node("Neg", ["a"], ["b"])], [oh.make_opsetid("", 20)])
    model = model_of([], {"x": X}, functions=[own])
    assert model.is_standard(node("Neg", ["x"], ["y"]))
    assert model.is_standard(node("Neg", ["x"], ["y"], domain="ai.onnx"))
    assert not model.is_standard(node("Neg", ["x"], ["y"], domain="com.microsoft"))
    assert not model.is_standard(node("Relu", ["x"], ["y"]))
