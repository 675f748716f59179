"""The nodes of a lowering at the opset of the file that they go into.

torch exports them at opset 18. Their operators mean the same at each newer opset. At an older one, some take
a parameter as an attribute, or do not have it yet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import onnx
from onnx import NodeProto, TensorProto

from fx_passes.errors import ExportError

Constants = Mapping[str, TensorProto]
_Rule = Callable[[NodeProto, int, Constants], list[NodeProto]]


def at_opset(nodes: Iterable[NodeProto], opset: int, constants: Constants) -> list[NodeProto]:
    """The nodes, written for ``opset``. Nodes that need no change are the same objects.

    Args:
        nodes: nodes of opset 18.
        opset: 11 or newer.
        constants: the initializers that the nodes read.

    Raises:
        ExportError: a node has no form at that opset.
    """
    if opset >= 18:
        return list(nodes)
    written = []
    for node in nodes:
        rule = _RULES.get(node.op_type)
        written += [node] if rule is None else rule(node, opset, constants)
    return written


def _reshape(node: NodeProto, opset: int, constants: Constants) -> list[NodeProto]:
    if opset >= 14:
        return [node]
    # A computed shape has a zero only if there are no elements. Then a zero that is taken for "as before"
    # gives no elements either, or an error: never other numbers.
    shape = _numbers(node.input[1], constants) or []
    if _attribute(node, "allowzero") and 0 in shape:
        raise ExportError(f"Reshape to a size of zero has no form at opset {opset}")
    return [_changed(node, without="allowzero")]


def _split(node: NodeProto, opset: int, constants: Constants) -> list[NodeProto]:
    changed = _changed(node, without="num_outputs")
    return [changed] if opset >= 13 else [_as_attribute(changed, 1, "split", opset, constants)]


def _axes(node: NodeProto, opset: int, constants: Constants) -> list[NodeProto]:
    return [node] if opset >= 13 else [_as_attribute(node, 1, "axes", opset, constants)]


def _sum(node: NodeProto, opset: int, constants: Constants) -> list[NodeProto]:
    if opset >= 13:
        return [node]
    if _attribute(node, "noop_with_empty_axes") and not (len(node.input) > 1 and node.input[1]):
        raise ExportError(f"ReduceSum over no axes has no form at opset {opset}")
    return _axes(_changed(node, without="noop_with_empty_axes"), opset, constants)


def _pad(node: NodeProto, opset: int, constants: Constants) -> list[NodeProto]:
    if len(node.input) > 3 and node.input[3]:
        raise ExportError(f"Pad with axes has no form at opset {opset}")
    if any(a.name == "mode" and a.s == b"wrap" for a in node.attribute):
        raise ExportError(f"Pad in mode wrap has no form at opset {opset}")
    return [node]


def _shape(node: NodeProto, opset: int, constants: Constants) -> list[NodeProto]:
    start, end = _attribute(node, "start") or 0, _attribute(node, "end")
    if opset >= 15 or (start == 0 and end is None):
        return [_changed(node, without="start")] if opset < 15 else [node]
    whole = _changed(_changed(node, without="start"), without="end")
    whole.output[0] += "_whole"
    whole.name += "_whole"
    bounds = [np.array([start]), np.array([np.iinfo(np.int64).max if end is None else end])]
    made = [
        onnx.helper.make_node(
            "Constant",
            [],
            [f"{node.output[0]}_{what}"],
            name=f"{node.name}_{what}",
            value=onnx.numpy_helper.from_array(bound.astype(np.int64)),
        )
        for what, bound in zip(("start", "end"), bounds, strict=True)
    ]
    given = [whole.output[0], *(constant.output[0] for constant in made)]
    return [whole, *made, onnx.helper.make_node("Slice", given, [node.output[0]], name=node.name)]


_RULES: dict[str, _Rule] = {
    "Reshape": _reshape,
    "Split": _split,
    "Squeeze": _axes,
    "Unsqueeze": _axes,
    "ReduceSum": _sum,
    "Pad": _pad,
    "Shape": _shape,
}


def _as_attribute(node: NodeProto, place: int, name: str, opset: int, constants: Constants) -> NodeProto:
    """``node``, with the constant input at ``place`` as the attribute ``name``."""
    if len(node.input) <= place or not node.input[place]:
        return node
    numbers = _numbers(node.input[place], constants)
    if numbers is None:
        raise ExportError(f"{node.op_type} with a computed parameter has no form at opset {opset}")
    changed = _changed(node, without=name)
    del changed.input[place:]
    changed.attribute.append(onnx.helper.make_attribute(name, numbers))
    return changed


def _changed(node: NodeProto, *, without: str) -> NodeProto:
    """A copy of ``node`` without one of its attributes."""
    changed = NodeProto()
    changed.CopyFrom(node)
    del changed.attribute[:]
    changed.attribute.extend(attribute for attribute in node.attribute if attribute.name != without)
    return changed


def _attribute(node: NodeProto, name: str) -> int | None:
    return next((int(a.i) for a in node.attribute if a.name == name), None)


def _numbers(name: str, constants: Constants) -> list[int] | None:
    if name not in constants:
        return None
    return [int(number) for number in onnx.numpy_helper.to_array(constants[name]).reshape(-1)]
