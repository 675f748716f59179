"""Convolutions written as ATen operators, as ``torch.export`` and ``make_fx`` record them."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch.fx import GraphModule, Node

from fx_passes.sites.call import OPERATORS, ConvCall, call_from_schema

_aten = torch.ops.aten
_OPS = {overload: op for op, overload in OPERATORS.items()}
_OPS |= {
    _aten.conv1d.padding: "conv1d",
    _aten.conv2d.padding: "conv2d",
    _aten.conv3d.padding: "conv3d",
}


def match(node: Node, graph_module: GraphModule) -> ConvCall | None:
    if node.op != "call_function":
        return None
    if node.target is _aten.convolution.default:
        return _match_convolution(node)
    if node.target in _OPS:
        return call_from_schema(node, "aten", _OPS[node.target], node.target._schema)
    return None


def _match_convolution(node: Node) -> ConvCall:
    """``convolution.default`` holds all six operators; stride has one entry per spatial dimension."""
    call = call_from_schema(node, "aten", "convolution", _aten.convolution.default._schema)
    prefix = "conv_transpose" if call.arguments["transposed"] else "conv"
    return replace(call, op=f"{prefix}{len(call.arguments['stride'])}d")
