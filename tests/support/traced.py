"""Symbolic traces that know their shapes."""

from __future__ import annotations

from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import GraphModule, symbolic_trace
from torch.fx.passes.fake_tensor_prop import FakeTensorProp


def with_sizes(model: nn.Module, *inputs: Tensor) -> GraphModule:
    """Trace ``model`` symbolically, and give each node its shape, as an export does."""
    graph_module = symbolic_trace(model)
    for node in graph_module.graph.nodes:
        node.type = None  # annotations that are strings cannot be pickled
    FakeTensorProp(graph_module, FakeTensorMode(allow_non_fake_inputs=True)).propagate(*inputs)
    return graph_module
