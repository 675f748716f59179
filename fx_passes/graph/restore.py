"""What torch's symbolic tracing loses of the state of a model: tensors it does not read, and their order."""

from __future__ import annotations

from torch import nn
from torch.fx import GraphModule
from torch.fx.graph_module import _assign_attr

from fx_passes.graph.tensors import attribute


def restore_state(graph_module: GraphModule, model: nn.Module) -> None:
    """Give the traced module the state_dict of its model: torch keeps only what the graph reads."""
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if attribute(graph_module, name) is None:
            _assign_attr(parameter, graph_module, name)
    persistent: set[str] = set()
    for prefix, module in model.named_modules(remove_duplicate=False):
        for key, buffer in module._buffers.items():
            name = f"{prefix}.{key}" if prefix else key
            if key not in module._non_persistent_buffers_set:
                persistent.add(name)
            if buffer is not None and attribute(graph_module, name) is None:
                _assign_attr(buffer, graph_module, name)
    for prefix, module in graph_module.named_modules(remove_duplicate=False):
        names = {key: f"{prefix}.{key}" if prefix else key for key in module._buffers}
        module._non_persistent_buffers_set |= {k for k, n in names.items() if n not in persistent}


def restore_order(graph_module: GraphModule, model: nn.Module) -> None:
    """The model's order, by which states of optimizers know parameters; torch's is the order of use."""
    ours = dict(graph_module.named_modules(remove_duplicate=False))
    for name, module in model.named_modules(remove_duplicate=False):
        if name not in ours:
            continue
        for kind in ("_parameters", "_buffers", "_modules"):
            held, order = vars(ours[name])[kind], vars(module)[kind]
            for key in [
                *(key for key in order if key in held),
                *(key for key in list(held) if key not in order),
            ]:
                held[key] = held.pop(key)
