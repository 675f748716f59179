"""A capture for inference: bodies of ``no_grad`` and the like, which torch.export makes graphs of their own,
are put back where they are called."""

from __future__ import annotations

import logging
import operator
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg
from torch.fx.passes.fake_tensor_prop import FakeTensorProp

from fx_passes.capture.routes import Capture, capture
from fx_passes.graph.clone import clone_module
from fx_passes.graph.torch_internals import FakeTensorMode

log = logging.getLogger(__name__)


def capture_for_inference(
    model: nn.Module | ExportedProgram,
    example_inputs: Sequence[Any] | None = None,
    *,
    dynamic_shapes: Any = None,
) -> Capture:
    """As ``routes.capture``, but never the model itself, with ``inline_modes``, and with the shapes that
    ``example_inputs`` give, whatever the route; not where some of them are to stay open."""
    captured = capture(model, example_inputs, dynamic_shapes=dynamic_shapes)
    if captured.graph_module is model:
        captured = replace(captured, graph_module=clone_module(captured.graph_module))
    inline_modes(captured.graph_module)
    if example_inputs is not None and dynamic_shapes is None:
        _propagate(captured.graph_module, example_inputs)
    return captured


def _propagate(graph_module: GraphModule, example_inputs: Sequence[Any]) -> None:
    """Give the nodes of a graph that was not made by torch.export their shapes."""
    if all("val" in node.meta for node in graph_module.graph.nodes if node.op == "placeholder"):
        return
    try:
        FakeTensorProp(graph_module, FakeTensorMode(allow_non_fake_inputs=True)).propagate(*example_inputs)
    except Exception:  # it reads a number, say; then the shapes stay unknown, as sites will report
        log.debug("shapes could not be propagated", exc_info=True)


def inline_modes(graph_module: GraphModule) -> None:
    """Put graphs that run with gradients on or off, or with autocast off, in the place of their calls.

    ``torch.export`` makes the body of ``with torch.no_grad()`` a call of a graph of its own. Gradients make
    no difference to inference, which is what this is for, and autocast is off where nothing has put it on.
    """
    inlined = False
    # What is put in may call another one.
    while calls := [(n, at) for n in graph_module.graph.nodes if (at := _body_argument(n)) is not None]:
        inlined = True
        for call, at in calls:
            body = call.args[at]
            assert isinstance(body, Node)
            _inline(graph_module, call, str(body.target), call.args[at + 1 :])
    if inlined:
        graph_module.graph.eliminate_dead_code()
        graph_module.recompile()


def _body_argument(node: Node) -> int | None:
    """Which argument of ``node`` is the graph that it calls in a mode that inference need not know."""
    if node.target is torch.ops.higher_order.wrap_with_set_grad_enabled:
        return 1
    if node.target is torch.ops.higher_order.wrap_with_autocast and node.args[2] is False:
        return 4  # (device, dtype, enabled, cache, body, ...)
    return None


def _inline(graph_module: GraphModule, call: Node, name: str, inputs: Sequence[Any]) -> None:
    """Copy the graph of submodule ``name`` in front of ``call``, and use its results."""
    body = graph_module.get_submodule(name)
    assert isinstance(body, GraphModule)
    copies: dict[Node, Any] = {}
    remaining = iter(inputs)
    for node in body.graph.nodes:
        if node.op == "placeholder":
            copies[node] = next(remaining)
        elif node.op == "output":
            results = map_arg(node.args[0], lambda n: copies[n])
        else:
            with call.graph.inserting_before(call):
                copy = copies[node] = call.graph.node_copy(node, lambda n: copies[n])
            if node.op in ("get_attr", "call_module"):
                copy.target = f"{name}.{node.target}"
    for user in list(call.users):
        if user.target is operator.getitem:
            user.replace_all_uses_with(results[user.args[1]])
            call.graph.erase_node(user)
    if call.users:
        call.replace_all_uses_with(results)
    call.graph.erase_node(call)
