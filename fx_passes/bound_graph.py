"""A graph of torch.compile around the model's own tensors: a module of the tensors of the caller.

Its open sizes are inputs of the graph. The module reads them from the tensors, so that a capture keeps them
open.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from fx_passes.find.calls import find_calls
from fx_passes.graph.torch_internals import traced_example
from fx_passes.resample.lengths import Size, shape_of, size_of

# The model's own tensors are attributes with this name and their position among the inputs.
OWN = "own_"


def sources(values: Iterable[Any]) -> set[Node]:
    """All nodes that some values of a graph are computed from, and the nodes among these values."""
    stack, seen = list(values), set()
    while stack:
        value = stack.pop()
        if isinstance(value, Node) and value not in seen:
            seen.add(value)
            stack.extend(value.all_input_nodes)
    return seen


def sizes_kept_open(graph_module: GraphModule, own: set[int]) -> dict[int, dict[int, Size]]:
    """The open sizes of the tensors of the caller: by position of the input, and by dimension.

    A number of groups, or a size that a kernel is computed from, is not open: a lowered kernel is a constant.
    """
    used = [call for call in find_calls(graph_module) if isinstance(call.weight, Node)]
    kernels = sources(value for call in used for value in (call.weight, call.bias, *call.arguments.values()))
    closed = {size_of(v) for node in kernels if isinstance(v := traced_example(node), torch.SymInt)}
    found = {}
    for index, node in enumerate(placeholders_of(graph_module)):
        shape = None if index in own else shape_of(traced_example(node))
        if shape is not None:
            is_open = {d: n for d, n in enumerate(shape) if not isinstance(n, int)}
            found[index] = {d: n for d, n in is_open.items() if n not in closed}
    return found


def sizes_of_tensors(
    graph_module: GraphModule, opened: Mapping[int, Mapping[int, Size]]
) -> dict[int, tuple[int, int]]:
    """The inputs of a graph that are open sizes of its tensors, by position: the position of the tensor among
    the tensors of the caller, and the dimension."""
    places = {
        size: (number, dim) for number, sizes in enumerate(opened.values()) for dim, size in sizes.items()
    }
    examples = {index: traced_example(node) for index, node in enumerate(placeholders_of(graph_module))}
    found = {i: size_of(value) for i, value in examples.items() if isinstance(value, torch.SymInt)}
    return {index: places[size] for index, size in found.items() if size in places}


def placeholders_of(graph_module: GraphModule) -> list[Node]:
    """The nodes of the inputs."""
    return [node for node in graph_module.graph.nodes if node.op == "placeholder"]


class Bound(nn.Module):
    """The graph around the model's own tensors and numbers, as a module of the other inputs.

    Args:
        own: the positions of the model's own tensors.
        sizes: of the numbers that are sizes of these inputs, as ``sizes_of_tensors`` gives them.
    """

    def __init__(
        self,
        graph_module: GraphModule,
        inputs: Sequence[Any],
        own: set[int],
        sizes: Mapping[int, tuple[int, int]],
    ) -> None:
        super().__init__()
        self.graph = graph_module
        self.sizes = sizes
        self.fixed: dict[int, Any] = {}
        for index, value in enumerate(inputs):
            if index in own:
                self.fixed[index] = f"{OWN}{index}"
                if isinstance(value, nn.Parameter):
                    self.register_parameter(f"{OWN}{index}", value)
                else:
                    self.register_buffer(f"{OWN}{index}", value)
            elif not isinstance(value, Tensor) and index not in sizes:
                self.fixed[index] = value
        self.count = len(inputs)

    def forward(self, *given: Tensor) -> Any:
        """The inputs that are tensors of the caller -> the outputs of the graph."""
        rest = iter(given)
        fixed = {i: getattr(self, v) if isinstance(v, str) else v for i, v in self.fixed.items()}
        fixed |= {i: given[number].shape[dim] for i, (number, dim) in self.sizes.items()}
        return self.graph(*(fixed[i] if i in fixed else next(rest) for i in range(self.count)))
