"""A small model, its exported program, and the graphs that dynamo makes of a function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import GraphModule


class Plus(nn.Module):
    """Adds a weighted ``x`` of shape (n,) to ``y`` of the same shape."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x * self.weight + y


def program(model: nn.Module | None = None, *inputs: Any, **options: Any) -> ExportedProgram:
    """The exported program of ``model``, or of ``Plus``."""
    if model is None:
        model, inputs = Plus(), (torch.rand(3), torch.rand(3))
    return torch.export.export(model, inputs, **options)


def graph_of(function: Callable[..., Any], *inputs: Tensor) -> list[GraphModule]:
    """The graphs that dynamo makes of a function."""
    torch.compiler.reset()
    graphs: list[GraphModule] = []

    def backend(graph_module: GraphModule, _: Any) -> Any:
        graphs.append(graph_module)
        return graph_module

    torch.compile(function, backend=backend)(*inputs)
    return graphs


def targets(graph_module: GraphModule) -> list[Any]:
    """The target of each node, in the order of the graph."""
    return [node.target for node in graph_module.graph.nodes]
