"""Calls a graph of torch.export with its arguments as they are.

torch.export makes graphs that take apart what they are given, and put together what they return, whatever
their structures. That may take a tenth of the time of a small convolution. Where all arguments are leaves,
and the result is one or a tuple or list of them, there is nothing to take apart.
"""

from __future__ import annotations

from torch.fx import GraphModule
from torch.fx.graph import CodeGen

from fx_passes.graph.torch_internals import structure_of_calls


def call_plainly(graph_module: GraphModule) -> None:
    """Take arguments and give results as they are, in place, if their structure allows it."""
    try:
        calls = structure_of_calls(graph_module)
    except AttributeError:  # symbolic tracing makes graphs that take and give values as they are
        return
    positional, by_name = calls.in_spec.children()
    result, graph = calls.out_spec, graph_module.graph
    names = [node.target for node in graph.nodes if node.op == "placeholder"]
    flat = all(child.is_leaf() for child in positional.children()) and by_name.num_children == 0
    flat_result = result.type in (tuple, list) and all(child.is_leaf() for child in result.children())
    if not flat or names != calls.orig_args or not (result.is_leaf() or flat_result):
        return
    output = graph.output_node()
    (values,) = output.args
    assert isinstance(values, tuple | list)
    output.args = (values[0] if result.is_leaf() else result.type(values),)
    graph.set_codegen(CodeGen())
    graph_module.recompile()
