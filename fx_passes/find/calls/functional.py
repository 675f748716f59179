"""Convolutions written as ``torch.nn.functional`` (or ``torch.``) calls, as symbolic tracing records them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch.fx import GraphModule, Node

from fx_passes.find.calls.aten import match_convolution
from fx_passes.find.calls.call import OPERATORS, ConvCall, call_from_schema
from fx_passes.graph.torch_internals import TORCH_CONVOLUTION, schema_of

_OPS = {getattr(namespace, op): op for op in OPERATORS for namespace in (F, torch)}


def match(node: Node, graph_module: GraphModule) -> ConvCall | None:
    if node.op != "call_function":
        return None
    if node.target in (torch.convolution, TORCH_CONVOLUTION):
        return match_convolution(node, "functional")
    if node.target not in _OPS:
        return None
    op = _OPS[node.target]
    # The functional form takes the arguments of the ATen operator, in the same order.
    return call_from_schema(node, "functional", op, schema_of(OPERATORS[op]))
