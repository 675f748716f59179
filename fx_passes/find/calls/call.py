"""One convolution as it stands in a live graph, in the same terms whatever its form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import GraphModule, Node

from fx_passes.records import Form

OPERATORS = {
    "conv1d": torch.ops.aten.conv1d.default,
    "conv2d": torch.ops.aten.conv2d.default,
    "conv3d": torch.ops.aten.conv3d.default,
    "conv_transpose1d": torch.ops.aten.conv_transpose1d.default,
    "conv_transpose2d": torch.ops.aten.conv_transpose2d.input,
    "conv_transpose3d": torch.ops.aten.conv_transpose3d.input,
}


@dataclass(frozen=True)
class ConvCall:
    """A convolution node with its arguments by name.

    ``weight`` and ``bias`` are nodes, or for the module form the qualified names of the module's
    tensors. ``arguments`` holds stride, padding, dilation, groups, ... as the graph has them: numbers,
    or nodes where they are computed from a shape.
    """

    node: Node
    form: Form
    op: str
    weight: Node | str
    bias: Node | str | None
    arguments: dict[str, Any]
    padding_mode: str = "zeros"

    @property
    def dim(self) -> int:
        return int(self.op[-2])

    @property
    def groups(self) -> Any:
        """Number of groups: an int, or the node that computes it."""
        return self.arguments["groups"]


Matcher = Callable[[Node, GraphModule], ConvCall | None]


def named_arguments(node: Node, schema: torch.FunctionSchema) -> dict[str, Any]:
    """The arguments of ``node`` by the names of ``schema``, defaults filled in."""
    values = {a.name: a.default_value for a in schema.arguments if a.has_default_value()}
    values.update(zip((a.name for a in schema.arguments), node.args, strict=False))
    values.update(node.kwargs)
    return values


def call_from_schema(node: Node, form: Form, op: str, schema: torch.FunctionSchema) -> ConvCall:
    """A :class:`ConvCall` of a node that takes its weight as an argument."""
    arguments = named_arguments(node, schema)
    arguments.pop("input")
    weight, bias = arguments.pop("weight"), arguments.pop("bias")
    return ConvCall(node, form, op, weight, bias, arguments)
