"""What torch's symbolic tracing loses of the state of a model: tensors it does not read, and their order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn
from torch.fx import GraphModule

from fx_passes.graph.tensors import attribute
from fx_passes.graph.torch_internals import (
    assign_attribute,
    buffers_held,
    modules_held,
    parameters_held,
    unsaved_buffers,
)

_REGISTRIES: tuple[Callable[[nn.Module], dict[str, Any]], ...] = (parameters_held, buffers_held, modules_held)


def restore_state(graph_module: GraphModule, model: nn.Module) -> None:
    """Give the traced module the state_dict of its model: torch keeps only what the graph reads."""
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if attribute(graph_module, name) is None:
            assign_attribute(parameter, graph_module, name)
    persistent: set[str] = set()
    for prefix, module in model.named_modules(remove_duplicate=False):
        for key, buffer in buffers_held(module).items():
            name = f"{prefix}.{key}" if prefix else key
            if key not in unsaved_buffers(module):
                persistent.add(name)
            if buffer is not None and attribute(graph_module, name) is None:
                assign_attribute(buffer, graph_module, name)
    for prefix, module in graph_module.named_modules(remove_duplicate=False):
        names = {key: f"{prefix}.{key}" if prefix else key for key in buffers_held(module)}
        unsaved_buffers(module).update(k for k, n in names.items() if n not in persistent)


def restore_order(graph_module: GraphModule, model: nn.Module) -> None:
    """The model's order, by which states of optimizers know parameters; torch's is the order of use."""
    ours = dict(graph_module.named_modules(remove_duplicate=False))
    for name, module in model.named_modules(remove_duplicate=False):
        if name not in ours:
            continue
        for registry in _REGISTRIES:
            held, order = registry(ours[name]), registry(module)
            for key in [
                *(key for key in order if key in held),
                *(key for key in list(held) if key not in order),
            ]:
                held[key] = held.pop(key)
