"""Names for the nodes of a lowering."""

from __future__ import annotations

import numpy as np
import onnx.helper as oh
from onnx import NodeProto
from onnx.numpy_helper import from_array, to_array

from export.write_onnx.labels import rename


def test_names_say_what_is_done() -> None:
    """By the operator, the tensor of the lowering, or the input that reads a constant; unique, and wired as
    before."""
    nodes = [
        oh.make_node("Reshape", ["a", "val_1"], ["v1"], name="node_1"),
        oh.make_node("ConvTranspose", ["v1", "entries.3.inner.rows"], ["v2"], name="node_2"),
        oh.make_node("Reshape", ["v2", "val_1"], ["v3"], name="node_3"),
        oh.make_node("Split", ["v3"], ["v4", "v5"], name="node_4", num_outputs=2),
        oh.make_node("Concat", ["v4", "v5", "val_2"], ["out"], name="node_5", axis=0),
        oh.make_node("Clip", ["out", "", "val_3"], ["end"], name="node_6"),
        oh.make_node("Odd", ["end", "val_4"], ["last", "", "more"], name="node_7", domain="elsewhere"),
        oh.make_node("Clip", ["more", ""], ["unused"], name="node_8"),
    ]
    names = ("val_1", "entries.3.inner.rows", "val_2", "val_3", "val_4")
    constants = {name: from_array(np.array(number), name) for number, name in enumerate(names)}
    stored, first, last = rename(nodes, constants, "a", "last", 18)
    assert [said(node) for node in nodes] == [
        "reshape: input reshape_shape -> reshape",
        "conv_transpose_rows: reshape rows -> conv_transpose_rows",
        "reshape_2: conv_transpose_rows reshape_shape -> reshape_2",
        "split: reshape_2 -> split split_2",
        "concat: split split_2 concat_inputs -> concat",
        "clip: concat  clip_max -> clip",
        "odd: clip odd_constant -> odd  odd_3",
        "clip_2: odd_3  -> clip_2",
    ]
    assert (first, last) == ("input", "odd")
    numbers = {name: int(to_array(tensor)) for name, tensor in stored.items()}
    assert numbers == {"reshape_shape": 0, "rows": 1, "concat_inputs": 2, "clip_max": 3, "odd_constant": 4}
    assert all(tensor.name == name for name, tensor in stored.items())
    assert [tensor.name for tensor in constants.values()] == list(names)


def said(node: NodeProto) -> str:
    return f"{node.name}: {' '.join(node.input)} -> {' '.join(node.output)}"
