"""The entries of a library take the places of the opaque nodes in a model."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.helper as oh
import onnx_ir as ir
from onnx import TensorProto
from onnx_checks import require_sound

from export.runtime.session import open_session, run
from export.write_onnx.library import entry_of, model_of, splice


def a_library() -> ir.Model:
    """Two entries: y0 = 3 * x0, and y1 = 3 * (x1 + 1). It is made by hand, so every name is known."""
    nodes = [
        oh.make_node("Mul", ["x0", "three"], ["y0"], name="first"),
        oh.make_node("Add", ["x1", "one"], ["t"], name="second"),
        oh.make_node("Mul", ["t", "three"], ["y1"], name="third"),
    ]
    return a_model(nodes, ["x0", "x1"], ["y0", "y1"], three=3.0, one=1.0)


def a_model(nodes: list[onnx.NodeProto], inputs: list[str], outputs: list[str], **stored: float) -> ir.Model:
    reads, writes = (
        [oh.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in names]
        for names in (inputs, outputs)
    )
    tensors = [
        onnx.numpy_helper.from_array(np.array(value, np.float32), name) for name, value in stored.items()
    ]
    domains = [oh.make_opsetid("", 20), oh.make_opsetid("fx_passes", 1)]
    graph = oh.make_graph(nodes, "test", reads, writes, tensors)
    return ir.from_proto(oh.make_model(graph, opset_imports=domains, ir_version=10))


def a_skeleton() -> ir.Model:
    """Three opaque nodes without names. The first and the last have the same index.

    The outputs of the last two are the outputs of the model.
    """
    ways = [(0, "x", "a"), (1, "a", "b"), (0, "b", "y")]
    nodes = [oh.make_node("Lowered", [i], [o], domain="fx_passes", index=n) for n, i, o in ways]
    return a_model(nodes, ["x"], ["y", "b"])


def test_splice() -> None:
    """Each opaque node becomes the entry with its index."""
    model = a_skeleton()
    splice(model, a_library())
    proto = ir.to_proto(model)
    require_sound(proto)
    found = run(open_session(proto.SerializeToString()), [np.ones(2, np.float32)])
    assert [array.tolist() for array in found] == [[36.0, 36.0], [12.0, 12.0]]
    assert len(proto.graph.initializer) == 2


def test_an_entry_of_a_library() -> None:
    """The nodes of an entry keep their order. As a model, an entry has one input and one output.

    The library does not change.
    """
    library = a_library()
    before = ir.to_proto(library).SerializeToString()
    assert [node.op_type for node in entry_of(library.graph, 1).nodes] == ["Add", "Mul"]
    for index, expected in enumerate((6.0, 9.0)):
        model = ir.to_proto(model_of(library, index))
        onnx.checker.check_model(model, full_check=True)
        assert (len(model.graph.input), len(model.graph.output)) == (1, 1)
        (found,) = run(open_session(model.SerializeToString()), [np.full(2, 2, np.float32)])
        assert found.tolist() == [expected, expected]
    assert ir.to_proto(library).SerializeToString() == before
