"""What a graph knows before it runs: the numbers that onnxruntime would compute, and what is not known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx.helper as oh
import pytest
from onnx import ModelProto, NodeProto, TensorProto
from onnx.external_data_helper import set_external_data
from onnx.numpy_helper import from_array
from onnx_graphs import computed, model_of

from export.read_onnx.constants import Constants
from export.read_onnx.model import OnnxModel, read_model, stores_constants
from export.runtime.session import Array
from fx_passes.errors import LoadError

KERNEL = np.random.default_rng(0).standard_normal((1, 1, 3, 3)).astype(np.float32)
X = np.zeros((1, 4, 8, 8), np.float32)
# Each chain computes `c`. What it reads is in STORED.
CHAINS: dict[str, list[NodeProto]] = {
    "Constant": [oh.make_node("Constant", [], ["c"], value=from_array(KERNEL))],
    "numbers": [oh.make_node("Constant", [], ["c"], value_floats=[0.1, 0.2, 0.3])],
    "Expand": [oh.make_node("Expand", ["kernel", "four"], ["c"])],
    "Tile": [oh.make_node("Tile", ["kernel", "four"], ["c"])],
    "Reshape": [
        oh.make_node("Tile", ["kernel", "four"], ["t"]),
        oh.make_node("Reshape", ["t", "flat"], ["c"]),
    ],
    "ConstantOfShape": [
        oh.make_node("ConstantOfShape", ["four"], ["c"], value=from_array(np.array([0.1], np.float32)))
    ],
    "Where": [oh.make_node("Where", ["diagonal", "kernel", "zero"], ["c"])],
    "ScatterND": [
        oh.make_node("ConstantOfShape", ["shape"], ["zeros"]),
        oh.make_node("ScatterND", ["zeros", "places", "kernel"], ["c"]),
    ],
    "rounded": [
        oh.make_node("Mul", ["kernel", "kernel"], ["s"]),
        oh.make_node("Exp", ["s"], ["e"]),
        oh.make_node("ReduceSum", ["e"], ["total"], keepdims=0),
        oh.make_node("Div", ["e", "total"], ["c"]),
    ],
    "halves": [
        oh.make_node("Cast", ["kernel"], ["h"], to=TensorProto.FLOAT16),
        oh.make_node("Expand", ["h", "four"], ["c"]),
    ],
    "an input that is left out": [oh.make_node("Clip", ["kernel", "", "zero"], ["c"])],
}
STORED: dict[str, Array] = {
    "kernel": KERNEL,
    "four": np.array([4, 1, 1, 1]),
    "flat": np.array([2, -1]),
    "shape": np.array([4, 1, 3, 3]),
    "diagonal": np.eye(3, dtype=bool).reshape(3, 3, 1, 1),
    "zero": np.zeros((), np.float32),
    "places": np.array([[2]]),
}


def reads(nodes: Sequence[NodeProto], **stored: Array) -> OnnxModel:
    """A model that reads ``c`` and an input."""
    last = oh.make_node("ConvInteger", ["x", "c"], ["y"])
    return model_of([*nodes, last], {"x": X}, {**STORED, **stored})


@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize("opset", [13, 20])
def test_the_bits_of_onnxruntime(name: str, opset: int) -> None:
    """Whatever operators a constant is made of, it has the numbers that the file itself computes with."""
    nodes = CHAINS[name]
    model = model_of(nodes, {}, STORED, outputs=("c",), opset=opset)
    constants = Constants(model)
    assert "c" in constants
    for optimized in (False, True):
        (expected,) = computed(model, optimized=optimized)
        for found in (constants["c"], constants.get("c"), constants.peek("c")):
            assert found is not None and found.dtype == expected.dtype and found.shape == expected.shape
            assert found.tobytes() == expected.tobytes()


def test_several_at_once() -> None:
    """Constants that are asked for together are those that are asked for one by one, also after a failure."""
    nodes = [
        oh.make_node("Expand", ["kernel", "four"], ["wide"]),
        oh.make_node("Reshape", ["kernel", "seven"], ["impossible"]),
        oh.make_node("Exp", ["kernel"], ["e"]),
    ]
    model = reads(nodes, seven=np.array([7]))
    together, alone = Constants(model), Constants(model)
    together.load(["wide", "impossible", "e", "kernel"])
    for name in ("wide", "e", "kernel"):
        np.testing.assert_array_equal(together[name], alone[name])
    assert together.get("impossible") is None
    with pytest.raises(KeyError):
        alone["impossible"]


def body(*nodes: NodeProto) -> onnx.GraphProto:
    return oh.make_graph(nodes, "body", [], [oh.make_tensor_value_info("b", TensorProto.FLOAT, None)])


NOT_CONSTANT: dict[str, NodeProto] = {
    "random": oh.make_node("RandomNormal", [], ["c"], shape=[2]),
    "random numbers in the shape of a constant": oh.make_node("RandomUniformLike", ["kernel"], ["c"]),
    "a choice by chance": oh.make_node("Bernoulli", ["kernel"], ["c"]),
    "of the input": oh.make_node("Mul", ["kernel", "x"], ["c"]),
    "of another domain": oh.make_node("Gelu", ["kernel"], ["c"], domain="com.microsoft"),
    "defined by the model": oh.make_node("Exp", ["kernel"], ["c"], domain="own"),
    "without inputs, of another domain": oh.make_node("Constant", [], ["c"], domain="own", value_float=1.0),
    "quantised": oh.make_node("DequantizeLinear", ["bytes", "zero"], ["c"]),
    "with a body": oh.make_node(
        "If",
        ["yes"],
        ["c"],
        then_branch=body(oh.make_node("Exp", ["kernel"], ["b"])),
        else_branch=body(oh.make_node("Identity", ["kernel"], ["b"])),
    ),
}


@pytest.mark.parametrize("name", NOT_CONSTANT)
def test_what_is_no_constant(name: str) -> None:
    """Neither is what is computed from it. Nodes by which a runtime knows integer arithmetic stay."""
    nodes = [NOT_CONSTANT[name], oh.make_node("Neg", ["c"], ["behind"])]
    constants = Constants(reads(nodes, bytes=np.zeros(3, np.int8), yes=np.array(True)))
    for value in ("c", "behind", "x", "no such value", ""):
        assert value not in constants
        assert constants.get(value) is None
        with pytest.raises(KeyError):
            constants[value]


def test_standard_operators_that_the_model_defines() -> None:
    """A function of the model comes before the standard operator of its name."""
    own = oh.make_function(
        "", "Exp", ["a"], ["b"], [oh.make_node("Neg", ["a"], ["b"])], [oh.make_opsetid("", 20)]
    )
    model = model_of([oh.make_node("Exp", ["kernel"], ["c"])], {}, STORED, outputs=("c",), functions=[own])
    assert "c" not in Constants(model)


def listed(ir_version: int) -> OnnxModel:
    """A model whose initializer is an input as well, and one constant that is none."""
    nodes = [
        oh.make_node("Exp", ["kernel"], ["of input"]),
        oh.make_node("Constant", [], ["c"], value=from_array(KERNEL)),
        oh.make_node("Exp", ["c"], ["e"]),
    ]
    model = model_of(nodes, {"kernel": KERNEL}, {"kernel": KERNEL}, outputs=("of input", "e"), opset=11)
    model.proto.ir_version = ir_version
    return model


@pytest.mark.parametrize("ir_version", [3, 8])
def test_an_initializer_that_is_an_input(ir_version: int) -> None:
    """A user may replace it. In files of version 3 every initializer is an input."""
    model = listed(ir_version)
    constants = Constants(model)
    assert "kernel" not in constants
    assert "of input" not in constants
    np.testing.assert_array_equal(constants["e"], computed(model)[1])
    assert stores_constants(model.proto) == (ir_version > 3)
    assert list(model.inputs) == []


def saved_beside(folder: Path) -> Path:
    """A file whose kernel lies in ``weights.bin``."""
    proto = ModelProto()
    proto.CopyFrom(reads([oh.make_node("Tile", ["kernel", "four"], ["c"])]).proto)
    # onnxruntime refuses files whose shapes lie elsewhere, as it needs them earlier.
    set_external_data(next(t for t in proto.graph.initializer if t.name == "kernel"), "weights.bin")
    onnx.save(proto, folder / "model.onnx")
    return folder / "model.onnx"


def test_numbers_in_another_file(tmp_path: Path) -> None:
    """They are read there, by us and by onnxruntime."""
    constants = Constants(read_model(saved_beside(tmp_path)))
    np.testing.assert_array_equal(constants["kernel"], KERNEL)
    np.testing.assert_array_equal(constants["c"], np.tile(KERNEL, (4, 1, 1, 1)))


@pytest.mark.parametrize("name", ["kernel", "c"])
def test_a_file_of_numbers_that_is_missing(name: str, tmp_path: Path) -> None:
    """The error names it, and the initializer, in one line."""
    path = saved_beside(tmp_path)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(LoadError, match=r"initializer `.*weights\.bin") as error:
        Constants(read_model(path)).get(name)
    assert "\n" not in str(error.value)


def test_a_file_of_numbers_that_is_too_short(tmp_path: Path) -> None:
    """The error names the initializer."""
    path = saved_beside(tmp_path)
    (tmp_path / "weights.bin").write_bytes(b"")
    with pytest.raises(LoadError, match=r"initializer `kernel` cannot be read") as error:
        Constants(read_model(path)).get("kernel")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "source"),
    [
        *((chain, "kernel") for chain in ("Expand", "Tile", "Reshape", "Where", "ScatterND", "rounded")),
        *((chain, None) for chain in ("Constant", "ConstantOfShape")),
    ],
)
def test_the_initializer_that_a_constant_is_made_of(name: str, source: str | None) -> None:
    """Shapes, indices and masks are not what a constant is made of."""
    constants = Constants(reads(CHAINS[name]))
    assert constants.source("c") == source
    assert constants.source("kernel") == "kernel"


def test_a_constant_of_two_initializers() -> None:
    """It has no one source."""
    constants = Constants(reads([oh.make_node("Mul", ["kernel", "other"], ["c"])], other=KERNEL))
    assert constants.source("c") is None
