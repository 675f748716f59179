"""The nodes of a graph in order, and without those that only removed nodes needed."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import onnx.helper as oh
import pytest
from onnx import GraphProto, NodeProto, TensorProto
from onnx.numpy_helper import from_array

from export.write_onnx.put_nodes import in_order, put_nodes


def node(inputs: str, outputs: str, *bodies: GraphProto) -> NodeProto:
    """A node with one letter for each value; its bodies are those of an If."""
    made = oh.make_node("If" if bodies else "Op", list(inputs), list(outputs), name=f"makes {outputs}")
    made.attribute.extend(oh.make_attribute(f"branch{i}", body) for i, body in enumerate(bodies))
    return made


def body(*nodes: NodeProto) -> GraphProto:
    return oh.make_graph(nodes, "body", [], [])


def graph(
    nodes: Sequence[NodeProto], *, stored: str = "", inputs: str = "x", outputs: str = "y"
) -> GraphProto:
    def values(names: str) -> list:
        return [oh.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in names]

    tensors = [from_array(np.ones(2, np.float32), name) for name in stored]
    return oh.make_graph(nodes, "test", values(inputs), values(outputs), tensors)


def made_by(nodes: Sequence[NodeProto]) -> str:
    return " ".join("".join(one.output) for one in nodes)


def after_removal(before: GraphProto, removed: str) -> str:
    """What the nodes make that stay when the one that makes ``removed`` is taken out."""
    gone = [one for one in before.node if removed in one.output]
    put_nodes(before, [one for one in before.node if one not in gone], gone)
    return made_by(before.node)


def test_nodes_that_are_in_order_stay_as_they_are() -> None:
    """Also those that depend on nothing."""
    nodes = [node("x", "a"), node("x", "b"), node("", "c"), node("ba", "d"), node("c", "e"), node("de", "y")]
    assert in_order(nodes) == nodes


@pytest.mark.parametrize("seed", range(20))
def test_every_node_comes_after_what_it_reads(seed: int) -> None:
    """Whatever the order was. No node is lost, none comes twice."""
    chance = random.Random(seed)
    nodes = [
        node("".join(chance.sample("abcdefghij"[:i], min(i, chance.randrange(3)))), "abcdefghij"[i])
        for i in range(10)
    ]
    chance.shuffle(nodes)
    known: set[str] = set()
    found = in_order(nodes)
    for one in found:
        assert known.issuperset(one.input)
        known.update(one.output)
    assert sorted(made_by(found)) == sorted(made_by(nodes))


def test_what_a_body_reads_comes_before_its_node() -> None:
    """However deep the body is in other bodies. A value of the body itself is not looked for outside."""
    inner = body(node("o", "i"), node("i", "r"))
    nodes = [node("c", "y", body(node("x", "i"), node("i", "j", inner))), node("x", "o"), node("x", "c")]
    assert made_by(in_order(nodes)) in ("o c y", "c o y")


def test_what_only_a_removed_node_needed_goes_with_it() -> None:
    """Back to the inputs, with its initializers. An input stays, and a node that another one needs."""
    before = graph(
        [node("xw", "a"), node("ak", "b"), node("x", "c"), node("bc", "d"), node("c", "y")], stored="wk"
    )
    assert after_removal(before, "d") == "c y"
    assert not before.initializer
    assert [value.name for value in before.input] == ["x"]


def test_nodes_that_were_dead_before_stay() -> None:
    """Nobody asked to remove them: neither they, nor what they read."""
    before = graph([node("w", "a"), node("aw", "b"), node("x", "c"), node("x", "y")], stored="wu")
    assert after_removal(before, "c") == "a b y"
    assert [tensor.name for tensor in before.initializer] == ["w", "u"]


@pytest.mark.parametrize(
    "reader",
    [
        node("b", "r"),
        node("c", "r", body(node("b", "i"))),
        node("c", "r", body(node("x", "i", body(node("b", "j"))))),
    ],
)
def test_a_value_that_is_read_elsewhere_stays(reader: NodeProto) -> None:
    """By a node, by a body, or by a body in a body, even if nobody reads the result."""
    before = graph([node("xw", "b"), node("b", "d"), node("x", "c"), reader, node("x", "y")], stored="w")
    assert after_removal(before, "d") == "b c r y"
    assert [tensor.name for tensor in before.initializer] == ["w"]


def test_an_output_of_the_graph_stays() -> None:
    """Computed or stored."""
    before = graph([node("xw", "b"), node("bw", "d"), node("x", "y")], stored="w", outputs="ybw")
    assert after_removal(before, "d") == "b y"
    assert [tensor.name for tensor in before.initializer] == ["w"]


def test_a_node_with_two_results_goes_when_neither_is_needed() -> None:
    """One that is needed keeps the node, and what the node reads."""
    for reads, stays in (("x", "y"), ("b", "ab y")):
        before = graph([node("xw", "ab"), node("a", "d"), node(reads, "y")], stored="w")
        assert after_removal(before, "d") == stays
        assert len(before.initializer) == len(stays.split()) - 1


def test_an_initializer_that_is_an_input_stays() -> None:
    """A user may give it, as in the third version of the format."""
    before = graph([node("xw", "d"), node("x", "y")], stored="w", inputs="xw")
    assert after_removal(before, "d") == "y"
    assert [tensor.name for tensor in before.initializer] == ["w"]


def test_nothing_is_said_of_a_value_that_is_gone() -> None:
    """Neither its type, nor how it is quantized, nor its numbers if most of them are zeros."""
    before = graph([node("xs", "a"), node("a", "d"), node("xk", "y")], outputs="y")
    for name in "aky":
        before.value_info.append(oh.make_tensor_value_info(name, TensorProto.FLOAT, [2]))
        before.quantization_annotation.add(tensor_name=name)
    for name in "sk":
        numbers = from_array(np.ones(1, np.float32), name)
        before.sparse_initializer.append(oh.make_sparse_tensor(numbers, from_array(np.array([0])), [2]))
    assert after_removal(before, "d") == "y"
    assert [value.name for value in before.value_info] == ["k", "y"]
    assert [note.tensor_name for note in before.quantization_annotation] == ["k", "y"]
    assert [sparse.values.name for sparse in before.sparse_initializer] == ["k"]
