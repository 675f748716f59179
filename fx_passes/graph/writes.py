"""Does anything in a graph change a tensor that is read elsewhere?"""

from __future__ import annotations

from torch.fx import GraphModule, Node

from fx_passes.graph.operators import may_alias, read_inputs, written_nodes
from fx_passes.graph.torch_internals import ConvNd, GuardsFn


def writes_at_run_time(graph_module: GraphModule) -> bool:
    """Whether anything is written into what depends on an input, or into a tensor of the model, or what
    depends on an input is written into anything.

    Reading it elsewhere in the graph might then be too early or too late.
    """
    changing: set[Node] = set()
    given: set[Node] = set()
    for node in graph_module.graph.nodes:
        read = read_inputs(node)
        before = [n for n in read if n in changing]
        stored = {n for n in before if n.op == "get_attr"}
        computed = len(stored) < len(set(before))
        if node.op in ("placeholder", "get_attr") or computed or any(may_alias(node, n) for n in stored):
            changing.add(node)
        depends = not given.isdisjoint(read)
        if node.op == "placeholder" or depends:
            given.add(node)
        written = () if _is_pure_module(node, graph_module) else written_nodes(node)
        if written and (depends or not changing.isdisjoint(written)):
            return True
    return False


def _is_pure_module(node: Node, graph_module: GraphModule) -> bool:
    """Whether ``node`` calls a convolution, a module that says of itself that it writes nothing, or the
    guards of torch.export."""
    if node.op != "call_module":
        return False
    module = graph_module.get_submodule(str(node.target))
    pure = isinstance(module, ConvNd | GuardsFn)
    return pure or getattr(type(module), "writes_nothing", False)
