"""Names that a reader of a graph recognises, in place of those that torch's exporter counts.

A node is named after its operator, and after the tensor of the lowering that it reads: ``conv_rows``, not
``node_Conv_35``. A value has the name of its node. A constant has the name that the lowering gives it, or
that of the node and the input that read it: ``reshape_shape``, not ``val_5``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial

import onnx
from onnx import NodeProto, TensorProto

# How a tensor of a module is called in a library of modules.
_OF_MODULE = re.compile(r"entries\.\d+\.(?:.*\.)?(\w+)")


def rename(
    nodes: Sequence[NodeProto], constants: dict[str, TensorProto], input: str, output: str, opset: int
) -> tuple[dict[str, TensorProto], str, str]:
    """Give new names to the nodes of a part, in place, and to all its values.

    Args:
        nodes: in order.
        constants: the tensors that they read, by name.
        input, output: the values that the part reads and computes.
        opset: the version of the operators.

    Returns:
        The constants, the input and the output, by their new names.
    """
    renamed, taken = {input: "input", "": ""}, {"input"}
    free = partial(free_name, taken=taken)
    for node in nodes:
        own = [match[1] for name in node.input if name in constants and (match := _OF_MODULE.match(name))]
        node.name = free("_".join([_snake(node.op_type), *own[:1]]))
        slots = _slots(node, opset)
        for name, slot in zip(node.input, slots, strict=True):
            if name not in renamed:
                match = _OF_MODULE.match(name)
                renamed[name] = free(match[1] if match else f"{node.name}_{slot}")
        for place, name in enumerate(node.output):
            if not name:  # an output that is left out
                continue
            renamed[name] = node.name if place == 0 else free(f"{node.name}_{place + 1}")
        node.input[:] = [renamed[name] for name in node.input]
        node.output[:] = [renamed[name] for name in node.output]
    stored = {}
    for name, tensor in constants.items():
        stored[renamed[name]] = TensorProto()
        stored[renamed[name]].CopyFrom(tensor)
        stored[renamed[name]].name = renamed[name]
    return stored, renamed[input], renamed[output]


def free_name(name: str, taken: set[str]) -> str:
    """``name``, or ``name`` with a number where it is taken. Then it is taken, too."""
    free, count = name, 1
    while free in taken:
        count += 1
        free = f"{name}_{count}"
    taken.add(free)
    return free


def _snake(op: str) -> str:
    """``ConvTranspose`` as ``conv_transpose``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", op).lower()


def _slots(node: NodeProto, opset: int) -> list[str]:
    """What the standard calls each input of ``node``; the last one may stand for several."""
    try:
        formal = [one.name.lower() for one in onnx.defs.get_schema(node.op_type, opset, node.domain).inputs]
    except onnx.defs.SchemaError:
        formal = []
    formal = formal or ["constant"]
    return [formal[min(place, len(formal) - 1)] for place in range(len(node.input))]
