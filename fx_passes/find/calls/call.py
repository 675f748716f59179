"""One convolution in a live graph, described in the same terms for all forms."""

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

    Args:
        node: the node of the convolution.
        form: the form in which the model writes it.
        op: the operator, a key of ``OPERATORS``.
        weight, bias: nodes. In the module form: the qualified names of the tensors of the module.
        arguments: stride, padding, dilation, groups, ... as the graph has them: numbers, or nodes if they are
            computed from a shape.
        padding_mode: as in ``torch.nn``.
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
        """The number of groups: an int, or the node that computes it."""
        return self.arguments["groups"]


Matcher = Callable[[Node, GraphModule], ConvCall | None]


def named_arguments(node: Node, schema: torch.FunctionSchema) -> dict[str, Any]:
    """The arguments of ``node`` by their names in ``schema``, with the defaults filled in."""
    values = {a.name: a.default_value for a in schema.arguments if a.has_default_value()}
    values.update(zip((a.name for a in schema.arguments), node.args, strict=False))
    values.update(node.kwargs)
    return values


def call_from_schema(node: Node, form: Form, op: str, schema: torch.FunctionSchema) -> ConvCall:
    """The :class:`ConvCall` of a node that takes its weight as an argument."""
    arguments = named_arguments(node, schema)
    arguments.pop("input")
    weight, bias = arguments.pop("weight"), arguments.pop("bias")
    return ConvCall(node, form, op, weight, bias, arguments)
