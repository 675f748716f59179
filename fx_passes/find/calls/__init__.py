"""Finds the convolutions in a graph. There is one file for each form in which a model can write one."""

from __future__ import annotations

from collections.abc import Iterator

from torch.fx import GraphModule

from fx_passes.find.calls import aten, functional, module_call
from fx_passes.find.calls.call import ConvCall, Matcher

MATCHERS: tuple[Matcher, ...] = (module_call.match, functional.match, aten.match)


def find_calls(graph_module: GraphModule) -> Iterator[ConvCall]:
    """Every convolution of the top-level graph, in program order."""
    for node in graph_module.graph.nodes:
        for match in MATCHERS:
            if call := match(node, graph_module):
                yield call
                break


__all__ = ["MATCHERS", "ConvCall", "find_calls"]
