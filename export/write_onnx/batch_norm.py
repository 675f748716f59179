"""Convolutions in front of a batch norm, whose scale the exporter multiplies into their weights.

One scale for each channel: of a shared kernel there is nothing left in the file. So such a site stays as it
is, and its weight is stored whole.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.fx import GraphModule, Node

from fx_passes.graph.torch_internals import ATEN_BATCH_NORM, BatchNorm
from fx_passes.records import Finding

REASON = "a batch norm follows, whose scale the exporter multiplies into the weight"


def before_batch_norm(conv: Node, graph_module: GraphModule) -> bool:
    """Whether the only user of a convolution is a batch norm in evaluation mode, which exporters fold."""
    if len(conv.users) != 1:
        return False
    node = next(iter(conv.users))
    if node.op == "call_module":
        module = graph_module.get_submodule(str(node.target))
        return isinstance(module, BatchNorm) and not module.training
    if node.target is torch.ops.aten.batch_norm.default:
        return not node.args[5]
    return node.target is ATEN_BATCH_NORM


def folded_sites(graph_module: GraphModule, findings: Sequence[Finding]) -> frozenset[str]:
    """The ids of the shared sites whose only user is a batch norm in evaluation mode."""
    nodes = {node.name: node for node in graph_module.graph.nodes}
    return frozenset(
        finding.id
        for finding in findings
        if finding.shared
        and finding.groups > 1
        and finding.site.node in nodes
        and before_batch_norm(nodes[finding.site.node], graph_module)
    )
