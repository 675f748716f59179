"""Reports the parts of a model that a traced graph fixes, so that no one trains something else unawares."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn
from torch.fx import Graph, GraphModule

from fx_passes.capture.routes import capture
from fx_passes.errors import CaptureError
from fx_passes.graph.clone import clone_module
from fx_passes.graph.torch_internals import forward_hooks, forward_pre_hooks, has_backward_hooks


def fixed_by_tracing(model: nn.Module, graph_module: GraphModule) -> Iterator[str]:
    """Texts that name the parts of ``model`` that ``graph_module``, traced from it, does not take over."""
    kept = {name: type(module) for name, module in graph_module.named_modules()}
    for name, module in model.named_modules():
        hooked = forward_hooks(module) or forward_pre_hooks(module) or has_backward_hooks(module)
        if kept.get(name) is not type(module) and hooked:
            yield f"the hooks of `{name or type(model).__name__}` do not run, because its code is inlined"
    other = clone_module(model)
    for module in other.modules():
        module.training = not module.training
    mode, name = ("training", "eval()") if model.training else ("evaluation", "train()")
    try:
        graph = capture(other).graph_module.graph
    except CaptureError:
        yield f"it computes what the model computes in {mode} mode; after {name} the model cannot be traced"
        return
    if (node := _first_difference(graph_module.graph, graph)) is not None:
        yield f"`{node}` computes what the model computes in {mode} mode, also after {name}"


def _first_difference(graph: Graph, other: Graph) -> str | None:
    """The name of the first node of ``graph`` that differs from the node in ``other``. None if the graphs are
    equal."""
    ours, theirs = ([str((n.op, n.target, n.args, n.kwargs)) for n in g.nodes] for g in (graph, other))
    names = [node.name for node in graph.nodes]
    for name, first, second in zip(names, ours, theirs, strict=False):
        if first != second:
            return name
    return None if len(ours) == len(theirs) else names[-1]
