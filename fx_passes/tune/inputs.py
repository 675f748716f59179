"""What a graph is timed with: its inputs, and the device on which it runs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from fx_passes.errors import UsageError
from fx_passes.graph.torch_internals import pytree


def inputs_like(graph_module: GraphModule) -> list[Tensor]:
    """Inputs of the shapes, types and devices that the graph was captured with: random numbers, and zeros of
    types that may be indices.

    Raises:
        UsageError: they are not known, or not all inputs are tensors.
    """
    nodes = [node for node in graph_module.graph.nodes if node.op == "placeholder"]
    return [_like(node) for node in nodes]


def _like(node: Node) -> Tensor:
    value = node.meta.get("val")
    if not isinstance(value, Tensor):
        raise UsageError(f"tuning needs example inputs: the shape of input `{node.name}` is not known")
    shape = []
    for size in value.shape:
        if not isinstance(size, int) and not size.node.has_hint():
            raise UsageError(f"tuning needs example inputs: a size of input `{node.name}` is open")
        shape.append(size if isinstance(size, int) else size.node.hint)
    make = torch.rand if value.dtype.is_floating_point else torch.zeros
    return make(shape, dtype=value.dtype, device=value.device)


def device_of(graph_module: GraphModule, inputs: Sequence[Any]) -> torch.device:
    """Where the graph runs: the device of its tensors and inputs that is not the processor, if there is
    one."""
    given = (x for x in pytree.tree_leaves(list(inputs)) if isinstance(x, Tensor))
    devices = {x.device for x in chain(given, graph_module.parameters(), graph_module.buffers())}
    return min(devices, key=lambda device: (device.type == "cpu", str(device)), default=torch.device("cpu"))
