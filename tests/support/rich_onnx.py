"""An ONNX message with something in every field, around one convolution that the static rules lower."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx.helper as oh
from blur_files import BLUR, IMAGE
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto
from onnx.numpy_helper import from_array

PREFIX = "fx_passes/"
# Examples of its two inputs.
INPUTS = [
    np.random.default_rng(0).random(IMAGE).astype(np.float32),
    np.random.default_rng(1).random((2, 4)).astype(np.float32),
]


@dataclass(frozen=True)
class Edited:
    """What an edit may change.

    Args:
        nodes, stored, values: the names of nodes, initializers and values between nodes that go.
        changed: the names of nodes that stay under their name.
    """

    nodes: Collection[str]
    stored: Collection[str]
    values: Collection[str] = ()
    changed: Collection[str] = ()


# The whole site is replaced; only its weight is.
LOWERED = Edited({"pad", "blur"}, {"kernel", "bias", "pads"}, {"padded"})
ONCE = Edited({"blur"}, {"kernel", "bias"}, changed={"blur"})


def rich_model(*, runs: bool) -> ModelProto:
    """The message. Its site reads ``a``, and computes ``c``.

    Args:
        runs: onnxruntime can run it. Otherwise one operator is unknown, and it says how it is trained.
    """
    graph = _graph()
    imports = [oh.make_opsetid("", 20), oh.make_opsetid("local", 1)]
    body = [oh.make_node("Add", ["v", "v"], ["twice"], name="sum")]
    twice = oh.make_function("local", "Twice", ["v"], ["twice"], body, [oh.make_opsetid("", 20)])
    if not runs:
        unknown = _node("Secret", ["other", "a"], "secret", "unknown", domain="com.example", level=7)
        graph.node.insert(3, unknown)
        imports.append(oh.make_opsetid("com.example", 3))
    model = oh.make_model(graph, opset_imports=imports, functions=[twice], ir_version=10)
    model.producer_name, model.producer_version, model.domain = "somebody", "1.2.3", "com.example.model"
    model.model_version, model.doc_string = 42, "a model for tests"
    oh.set_model_props(model, {"author": "nobody", "classes": "cat,dog"})
    if not runs:
        training = model.training_info.add()
        training.algorithm.name = "no training"
        training.algorithm.node.append(oh.make_node("Sub", ["dense", "rate"], ["trained"]))
        training.update_binding.add(key="dense", value="trained")
    return model


def _node(op: str, inputs: list[str], output: str, name: str, **attributes: Any) -> NodeProto:
    """A node with a note for a reader, and one for a tool."""
    made = oh.make_node(op, inputs, [output], name=name, doc_string=f"what {name} is for", **attributes)
    made.metadata_props.add(key="made by", value=f"a tool, for {name}")
    return made


def _value(name: str, *shape: int | str) -> ValueInfoProto:
    return oh.make_tensor_value_info(name, TensorProto.FLOAT, shape or IMAGE, doc_string=f"what {name} holds")


def _graph() -> GraphProto:
    # What only the bodies of the If read of the main graph.
    then = oh.make_graph([_node("Add", ["s", "one"], "then", "in then")], "then", [], [_value("then")])
    other = oh.make_graph([_node("Neg", ["s"], "else", "in else")], "else", [], [_value("else")])
    nodes = [
        _node("Relu", ["other"], "nobody", "dead before"),
        _node("Relu", ["x"], "a", "first"),
        _node("Pad", ["a", "pads"], "padded", "pad"),
        _node("MatMul", ["other", "dense"], "flat", "beside"),
        _node("Conv", ["padded", "kernel", "bias"], "c", "blur", group=3),
        _node("Sigmoid", ["c"], "s", "behind"),
        _node("If", ["yes"], "picked", "choice", then_branch=then, else_branch=other),
        _node("Twice", ["picked"], "y", "call", domain="local"),
    ]
    graph = oh.make_graph(
        nodes,
        "everything",
        [_value("x"), _value("other", "batch", 4)],
        [_value("flat", "batch", 6), _value("y")],
        _initializers(),
        doc_string="a graph for tests",
        value_info=[_value("a"), _value("padded", 1, 3, 74, 74), _value("c"), _value("s")],
    )
    numbers = from_array(np.ones(1, np.float32), "sparse")
    graph.sparse_initializer.append(oh.make_sparse_tensor(numbers, from_array(np.array([2])), [9]))
    for name in ("padded", "s"):
        note = graph.quantization_annotation.add(tensor_name=name)
        note.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="scale of s")
    graph.metadata_props.add(key="of the graph", value="kept")
    return graph


def _initializers() -> list[TensorProto]:
    stored = {
        "unused": np.arange(5.0, dtype=np.float32),
        "kernel": BLUR,
        "pads": np.array([0, 0, 5, 5, 0, 0, 5, 5]),
        "dense": np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32),
        "bias": np.full(3, 0.25, np.float32),
        "one": np.ones((1, 1, 1, 1), np.float32),
        "yes": np.array(True),
        "scale of s": np.array(0.5, np.float32),
    }
    tensors = [from_array(array, name) for name, array in stored.items()]
    tensors[0].doc_string = "nobody reads it"
    return tensors


def require_kept(before: ModelProto, after: ModelProto, edited: Edited) -> None:
    """All that is not ``edited`` keeps its bytes and its order. What is new has a name that says so."""
    fresh = [n for n in after.graph.node if n.name.startswith(PREFIX) or n.name in edited.changed]
    kept = [n for n in before.graph.node if n.name not in edited.nodes]
    assert _bytes(n for n in after.graph.node if n not in fresh) == _bytes(kept)
    assert all(name.startswith(PREFIX) or name == "c" for node in fresh for name in node.output)
    old = [tensor for tensor in after.graph.initializer if not tensor.name.startswith(PREFIX)]
    assert _bytes(old) == _bytes(t for t in before.graph.initializer if t.name not in edited.stored)
    types = [value for value in before.graph.value_info if value.name not in edited.values]
    assert _bytes(after.graph.value_info) == _bytes(types)
    notes = [n for n in before.graph.quantization_annotation if n.tensor_name not in edited.values]
    assert _bytes(after.graph.quantization_annotation) == _bytes(notes)
    assert _rest(after) == _rest(before)


def _bytes(messages: Iterable[Any]) -> list[bytes]:
    return [message.SerializeToString(deterministic=True) for message in messages]


def _rest(model: ModelProto) -> bytes:
    """All but the four lists that an edit may change."""
    rest = ModelProto()
    rest.CopyFrom(model)
    for field in ("node", "initializer", "value_info", "quantization_annotation"):
        rest.graph.ClearField(field)
    return bytes(rest.SerializeToString(deterministic=True))
