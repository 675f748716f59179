"""What a traced graph fixes of its model, so that nobody trains or evaluates something else unawares."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn
from torch.fx import Graph, GraphModule

from fx_passes.capture.routes import capture
from fx_passes.errors import CaptureError
from fx_passes.graph.clone import clone_module
from fx_passes.graph.torch_internals import forward_hooks, forward_pre_hooks, has_backward_hooks


def fixed_by_tracing(model: nn.Module, graph_module: GraphModule) -> Iterator[str]:
    """What ``graph_module``, traced from ``model``, does not take over, in words."""
    kept = {name: type(module) for name, module in graph_module.named_modules()}
    for name, module in model.named_modules():
        hooked = forward_hooks(module) or forward_pre_hooks(module) or has_backward_hooks(module)
        if kept.get(name) is not type(module) and hooked:
            yield f"the hooks of `{name or type(model).__name__}` do not run, as its code is inlined"
    other = clone_module(model)
    for module in other.modules():
        module.training = not module.training
    mode, name = ("training", "eval()") if model.training else ("evaluation", "train()")
    try:
        graph = capture(other).graph_module.graph
    except CaptureError:
        yield f"it is what the model does in {mode} mode; after {name} it can no longer be traced"
        return
    if (node := _first_difference(graph_module.graph, graph)) is not None:
        yield f"`{node}` is what the model does in {mode} mode, whatever {name} says later"


def _first_difference(graph: Graph, other: Graph) -> str | None:
    """The first node of ``graph`` that is another one in ``other``."""
    ours, theirs = ([str((n.op, n.target, n.args, n.kwargs)) for n in g.nodes] for g in (graph, other))
    names = [node.name for node in graph.nodes]
    for name, first, second in zip(names, ours, theirs, strict=False):
        if first != second:
            return name
    return None if len(ours) == len(theirs) else names[-1]
