"""Convolutions written as ATen operators, as ``torch.export`` and ``make_fx`` record them."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch.fx import GraphModule, Node

from fx_passes.find.calls.call import OPERATORS, ConvCall, call_from_schema
from fx_passes.graph.torch_internals import ATEN_CONVOLUTION, OpOverloadPacket, schema_of
from fx_passes.records import Form

_aten = torch.ops.aten
_OPS = {overload: op for op, overload in OPERATORS.items()}
_PACKETS = {overload.overloadpacket: overload for overload in OPERATORS.values()}
_PACKETS |= {o.overloadpacket: o for o in (_aten.convolution.default, ATEN_CONVOLUTION)}
_OPS |= {
    _aten.conv1d.padding: "conv1d",
    _aten.conv2d.padding: "conv2d",
    _aten.conv3d.padding: "conv3d",
}


def match(node: Node, graph_module: GraphModule) -> ConvCall | None:
    if node.op != "call_function":
        return None
    target = node.target
    if isinstance(target, OpOverloadPacket):
        target = _PACKETS.get(target, target)
    if target in (_aten.convolution.default, ATEN_CONVOLUTION):
        return match_convolution(node, "aten")
    if target in _OPS:
        return call_from_schema(node, "aten", _OPS[target], schema_of(target))
    return None


def match_convolution(node: Node, form: Form) -> ConvCall:
    """``convolution`` holds all six operators; stride has one entry per spatial dimension."""
    call = call_from_schema(node, form, "convolution", schema_of(_aten.convolution.default))
    prefix = "conv_transpose" if call.arguments["transposed"] else "conv"
    return replace(call, op=f"{prefix}{len(call.arguments['stride'])}d")
