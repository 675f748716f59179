"""A kernel that a weight repeats is stored once: the same bits, where the file gets smaller."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.helper as oh
import pytest
from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto
from onnx.numpy_helper import from_array
from repeated_weights import (
    FORMS,
    arrays,
    bits,
    convolution,
    message,
    operators,
    run_operators,
    stored_once,
    weight_of,
)

from export.runtime.session import Array

# There is no Where in float16.
HALF = [form for form in FORMS if not form.startswith("diagonal")]
ALL = [*((form, "float16") for form in HALF), *((form, "float32") for form in FORMS)]


@pytest.mark.parametrize(("form", "dtype"), [*ALL, *((form, "float64") for form in FORMS)])
def test_the_weight_has_the_same_bits(form: str, dtype: str) -> None:
    """In each form and each type. Only one copy of the kernel is left in the file."""
    before = convolution(form, dtype)
    after, names = stored_once(before)
    onnx.checker.check_model(after, full_check=True)
    assert names == ("conv",)
    assert operators(after) == [*FORMS[form].operators, FORMS[form].op]
    weight, found = arrays(before)["w"], weight_of(after)
    assert (found.dtype, found.shape, found.tobytes()) == (weight.dtype, weight.shape, weight.tobytes())
    assert sum(a.size for a in arrays(after).values() if a.dtype == weight.dtype) < weight.size / 3


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize(("form", "dtype"), ALL)
def test_the_output_has_the_same_bits(form: str, dtype: str, biased: bool, tmp_path: Path) -> None:
    """With all optimizations of onnxruntime, and with none. It runs the operators of the original."""
    before = convolution(form, dtype, biased=biased)
    after, _ = stored_once(before)
    onnx.checker.check_model(after, full_check=True)
    for optimized in (True, False):
        assert bits(after, optimized=optimized) == bits(before, optimized=optimized)
    assert run_operators(after, tmp_path) == run_operators(before, tmp_path)


@pytest.mark.parametrize("form", [form for form in FORMS if form not in HALF])
def test_diagonal_blocks_in_float16_stay(form: str) -> None:
    """onnxruntime would compute their Where in each run, and not with the bits of the original."""
    before = convolution(form, "float16")
    after, names = stored_once(before)
    assert names == ()
    assert after.SerializeToString() == before.SerializeToString()


@pytest.mark.parametrize(
    ("form", "dtype", "moves"),
    [
        *((form, "float32", not form.startswith("transposed")) for form in FORMS),
        *((form, "float16", False) for form in HALF),
    ],
)
def test_where_the_bias_goes(form: str, dtype: str, moves: bool) -> None:
    """Behind a Conv in float32, in a shape that fits there. Else it stays."""
    before = convolution(form, dtype, biased=True)
    after, _ = stored_once(before)
    assert operators(after)[-1] == ("Add" if moves else FORMS[form].op)
    (conv,) = (node for node in after.graph.node if node.op_type == FORMS[form].op)
    assert len(conv.input) == (2 if moves else 3)
    assert ("b" in arrays(after)) != moves
    bias = arrays(after)[after.graph.node[-1].input[1] if moves else "b"]
    assert bias.shape == (FORMS[form].rows, *[1] * moves * (FORMS[form].weight.ndim - 2))
    assert bias.tobytes() == arrays(before)["b"].tobytes()


@pytest.mark.parametrize("always", [False, True])
def test_the_third_version_of_the_format(always: bool) -> None:
    """There an initializer has to be an input. So the new constants are nodes, and the bias stays."""
    before = convolution("rows 2", biased=True, ir=3, opset=11)
    after, names = stored_once(before, always=always)
    assert names == ("conv",)
    assert operators(after) == ["Constant", "Constant", "Expand", "Constant", "Reshape", "Conv"]
    assert list(arrays(after)) == ["b"]
    for proto in (after, before):  # onnxruntime wants the inputs
        for tensor in proto.graph.initializer:
            proto.graph.input.append(oh.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    require_same_bits(before, after)


def conv(source: str, output: str, weight: str = "w", *bias: str) -> NodeProto:
    return oh.make_node("Conv", [source, weight, *bias], [output], name=f"to {output}", group=6, pads=[4] * 4)


def two(*nodes: NodeProto, outputs: str = "yz", **more: Array) -> ModelProto:
    """A model with the weight ``w`` of six groups, and the bias ``b``."""
    stored: dict[str, Any] = {"w": FORMS["rows 1"].weight, "b": np.arange(6.0), **more}
    typed = {name: array.astype(np.float32) for name, array in stored.items()}
    return message(nodes, (6, 19, 17), typed, outputs=list(outputs))


def require_same_bits(before: ModelProto, after: ModelProto) -> None:
    onnx.checker.check_model(after, full_check=True)
    for optimized in (True, False):
        assert bits(after, optimized=optimized) == bits(before, optimized=optimized)


def test_a_weight_of_two_convolutions() -> None:
    """It is made once, in front of the first of them; so is their bias."""
    nodes = [conv("x", "a", "w", "b"), oh.make_node("Relu", ["a"], ["y"]), conv("y", "z", "w", "b")]
    before = two(*nodes)
    after, names = stored_once(before, always=False)
    assert names == ("to a", "to z")
    assert operators(after) == ["Expand", "Conv", "Add", "Relu", "Conv", "Add"]
    assert len(arrays(after)) == 3
    require_same_bits(before, after)


def test_a_bias_that_something_else_reads() -> None:
    """It stays for that reader. The convolution has a copy in another shape."""
    before = two(conv("x", "y", "w", "b"), oh.make_node("Add", ["b", "b"], ["c"]), outputs="y")
    after, _ = stored_once(before)
    assert {"b", "fx_passes/b/2d"} < set(arrays(after))
    require_same_bits(before, after)


SMALL = np.tile(np.ones((1, 1, 2, 2)), (6, 1, 1, 1))


def test_a_weight_that_is_tiny() -> None:
    """What would take its place is larger. So it is left alone, unless it is asked for."""
    before = two(oh.make_node("Conv", ["x", "w"], ["y"], name="conv", group=6), outputs="y", w=SMALL)
    after, names = stored_once(before, always=False)
    assert names == ()
    assert after.SerializeToString() == before.SerializeToString()
    assert stored_once(before, always=True)[1] == ("conv",)


def body(op: str, output: str) -> GraphProto:
    """A body that reads the weight."""
    return oh.make_graph([oh.make_node(op, ["w"], [output])], output, [], [ValueInfoProto(name=output)])


READERS = {
    "node": oh.make_node("Relu", ["w"], ["r"]),
    "body": oh.make_node(
        "If",
        ["yes"],
        ["r"],
        then_branch=body("Relu", "t"),
        else_branch=body("Neg", "e"),
    ),
}


@pytest.mark.parametrize("reader", [*READERS, "output"])
def test_a_weight_that_has_to_stay(reader: str) -> None:
    """Another node reads it, or a body, or it is an output. Then the file would not get smaller.

    If that is asked for all the same, the weight stays for the others."""
    before = two(conv("x", "y"), outputs="yw" if reader == "output" else "yr")
    before.graph.initializer.append(from_array(np.array(True), "yes"))
    if reader in READERS:
        before.graph.node.append(READERS[reader])
    after, names = stored_once(before, always=False)
    assert names == ()
    assert after.SerializeToString() == before.SerializeToString()
    after, names = stored_once(before, always=True)
    assert names == ("to y",)
    assert "w" in arrays(after)
    require_same_bits(before, after)


def test_existing_names_are_not_taken() -> None:
    """A value or a node of the model may have the name that a new one would get."""
    taken = ["fx_passes/w", "fx_passes/w/expanded", "fx_passes/b/2d", "fx_passes/to y/without_bias"]
    before = two(conv("x", "y", "w", "b"), outputs="y")
    source = "y"
    for name in [*taken, "fx_passes/to y/bias", "z"]:
        before.graph.node.append(oh.make_node("Neg", [source], [name], name=name))
        source = name
    before.graph.output[0].name = "z"
    after, names = stored_once(before)
    assert names == ("to y",)
    require_same_bits(before, after)
    everything = [name for node in after.graph.node for name in node.output] + list(arrays(after))
    assert len(set(everything)) == len(everything)
    assert len({node.name for node in after.graph.node}) == len(after.graph.node)


def test_a_second_time_there_is_nothing_to_do() -> None:
    """A weight that nodes expand is no repeated weight."""
    after, _ = stored_once(convolution("rows 2", biased=True))
    again, names = stored_once(after)
    assert names == ()
    assert again.SerializeToString() == after.SerializeToString()


def test_a_weight_that_a_user_may_give() -> None:
    """An initializer that is also an input is only a default."""
    before = convolution("rows 1")
    before.graph.input.append(oh.make_tensor_value_info("w", 1, FORMS["rows 1"].weight.shape))
    assert stored_once(before)[1] == ()
