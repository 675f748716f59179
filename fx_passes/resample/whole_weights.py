"""The weights of convolutions that are not lowered, as constants.

Before:  conv(x, repeat(kernel))        after:  conv(x, weight)

A kernel that the model repeats in each call is repeated once. That is for inference, as lowering is.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch.fx import GraphModule, Node

from fx_passes.graph import edit
from fx_passes.graph.constants import fold
from fx_passes.graph.tensors import State
from fx_passes.resample.site import Site


def freeze_weights(graph_module: GraphModule, sites: Sequence[Site]) -> bool:
    """Compute the weights of those of ``sites`` that are still in the graph, in place. Returns whether there
    were any to compute.

    Args:
        graph_module: nobody else holds it.
        sites: of this graph. Some may have been lowered.
    """
    nodes = {node.name: node for node in graph_module.graph.nodes}
    kept = [nodes[site.conv] for site in sites if not site.parts and site.conv in nodes]
    state = State(graph_module)
    # A module holds its weight itself.
    computed = [(conv, conv.args[1]) for conv in kept if conv.op == "call_function" and len(conv.args) > 1]
    frozen: dict[Node, Node] = {}
    for conv, weight in computed:
        if not isinstance(weight, Node) or weight.op == "get_attr":
            continue
        if weight not in frozen:
            value = fold(weight, conv, state, frozen=True).detach().clone()
            frozen[weight] = edit.add_buffer(graph_module, f"{conv.name}_weight", value, conv)
        conv.update_arg(1, frozen[weight])
    for weight in frozen:
        edit.erase_unused(weight)
    if frozen:
        graph_module.graph.lint()
        graph_module.recompile()
    return bool(frozen)
