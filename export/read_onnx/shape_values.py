"""Shapes that a graph reads while it runs, and that are known before: they are constants as well.

Exporters write ``x.shape[1]`` as Shape, then Gather or Slice. The sizes that are read may be known, even if
others are open.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from onnx import NodeProto

from export.read_onnx.constants import Constants
from export.read_onnx.model import attribute
from export.read_onnx.types import ValueType
from export.runtime.session import Array

# The sizes that a value holds; a name or None for one that is open.
Sizes = Sequence[int | str | None]


def add_shapes(constants: Constants, types: Mapping[str, ValueType]) -> None:
    """Tell ``constants`` of every value that follows from the types of the graph."""
    partly: dict[str, Sizes] = {}
    for node in constants.model.graph.node:
        if not constants.model.is_standard(node) or not node.output or node.output[0] in constants:
            continue
        sizes = _sizes_in(node, partly, constants, types)
        if sizes is None:
            constants.follow(node)
            continue
        shape = _shape_of(node, constants)
        if all(isinstance(size, int) for size in sizes):
            constants.know(node.output[0], np.array(sizes, dtype=np.int64).reshape(shape))
        elif len(shape) == 1:
            partly[node.output[0]] = sizes


def _sizes_in(
    node: NodeProto, partly: Mapping[str, Sizes], constants: Constants, types: Mapping[str, ValueType]
) -> Sizes | None:
    """The sizes that a node gives; None if it gives anything else."""
    if node.op_type == "Shape" and node.input[0] in types:
        whole = types[node.input[0]].shape
        return whole[attribute(node, "start", 0) : attribute(node, "end", len(whole))]
    if not node.input or node.input[0] not in partly:
        return None
    sizes = partly[node.input[0]]
    if node.op_type == "Gather" and (places := constants.get(node.input[1])) is not None:
        return [sizes[int(place)] for place in places.reshape(-1)]
    if node.op_type == "Slice" and (cut := _slice_of(node, constants)) is not None:
        return sizes[cut]
    return None


def _shape_of(node: NodeProto, constants: Constants) -> tuple[int, ...]:
    """The shape of a list of sizes: that of the places for Gather."""
    if node.op_type != "Gather":
        return (-1,)
    places = constants.get(node.input[1])
    assert places is not None
    return places.shape


def _slice_of(node: NodeProto, constants: Constants) -> slice | None:
    """The slice of a list; None if a bound is no constant."""
    bounds: list[Array | None] = [constants.get(name) for name in node.input[1:3]]
    step = constants.get(node.input[4]) if len(node.input) > 4 and node.input[4] else np.array([1])
    if step is None or any(bound is None for bound in bounds):
        return None
    first, last, by = (int(bound.reshape(-1)[0]) for bound in (*bounds, step) if bound is not None)
    return slice(first, last, by)
