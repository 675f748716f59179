"""``torch.compile(model, backend="fx_passes")``: share, lower by the static rules, then inductor.

The graph comes from torch.compile with parameters and buffers as inputs. For inference it is captured
again around the tensors it is called with, its shared convolutions are lowered, and what comes out goes to
inductor; once for each set of shapes. A lowered kernel is a constant: before every call, the tensors that
kernels and biases are computed from are compared with what they were, and a change lowers anew.

For training nothing is rewritten. Repeats that are parameters of their own would each have to get its own
gradient, and a kernel that is one parameter already is expanded in the graph: its module chooses how
(``train/formulations.py``). To train one kernel, ``share_kernels`` comes before ``torch.compile``.

Where nothing is lowered the graph goes to inductor as it is, and a warning of this logger says why.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from fx_passes.capture.inference import capture_for_inference
from fx_passes.find.calls import find_calls
from fx_passes.find.find_kernels import judge_graph
from fx_passes.graph.tensors import storage_key
from fx_passes.graph.torch_internals import SET_GRAD_ENABLED, inductor, is_static_input, options_of_mode
from fx_passes.lower import LOWERED, lower

log = logging.getLogger(__name__)

# Graphs that are kept, one for each set of shapes: the least recently used goes first.
_KEPT = 16
# The model's own tensors are attributes of this name and their position among the inputs.
_OWN = "own_"

Compiled = Callable[..., Any]


def fx_passes(
    graph_module: GraphModule,
    example_inputs: Sequence[Any],
    *,
    mode: str | None = None,
    options: dict[str, Any] | None = None,
) -> Compiled:
    """The backend; registered as ``fx_passes`` in the ``torch_dynamo_backends`` entry points.

    Args:
        graph_module: from torch.compile, every tensor and open size an input.
        example_inputs: the inputs of the call that is being compiled.
        mode, options: of ``torch.compile``, for inductor.

    Returns:
        What computes the graph.
    """
    patches = {**(options_of_mode(mode) if mode else {}), **(options or {})}
    reason = None
    if torch.is_grad_enabled() and any(isinstance(x, Tensor) and x.requires_grad for x in example_inputs):
        reason = "it is compiled for training; to train one kernel, share_kernels(model) before torch.compile"
    elif next(find_calls(graph_module), None) is None:
        reason = "it has no convolution"
    elif any(node.target is SET_GRAD_ENABLED for node in graph_module.graph.nodes):
        reason = "it switches gradients on or off"
    if reason is not None:
        log.warning("nothing is lowered in this graph: %s", reason)
        return inductor(graph_module, example_inputs, patches)
    return _Inference(graph_module, patches)


@dataclass(frozen=True)
class _Lowered:
    """A graph lowered for some shapes.

    Args:
        compiled: takes the inputs that are not the model's own tensors; None where nothing was lowered.
        own: the model's own tensors that it was lowered around, by the position of the input.
        baked: copies of those that its constants were computed from.
    """

    compiled: Compiled | None
    own: dict[int, Any]
    baked: dict[int, Tensor]

    def holds(self, inputs: Sequence[Any]) -> bool:
        """Whether they are the same objects, and the baked ones have the same values."""
        same = all(inputs[index] is tensor for index, tensor in self.own.items())
        return same and all(torch.equal(inputs[index], value) for index, value in self.baked.items())


class _Inference:
    """Lowers the graph for the shapes that it is called with."""

    def __init__(self, graph_module: GraphModule, options: dict[str, Any]) -> None:
        self.graph_module = graph_module
        self.inductor: dict[str, Any] = {"backend": "inductor", "options": options or None}
        self.placeholders = [node for node in graph_module.graph.nodes if node.op == "placeholder"]
        self.own = {index for index, node in enumerate(self.placeholders) if is_static_input(node)}
        self.kept: OrderedDict[Any, _Lowered] = OrderedDict()
        self.as_it_is = torch.compile(graph_module, **self.inductor)

    def __call__(self, *inputs: Any) -> Any:
        given = self._given(inputs)
        if len({storage_key(x) for x in given}) < len(given):
            log.warning(
                "inputs share memory, which a graph that is captured again would not know: run as it is"
            )
            return self.graph_module(*inputs)
        key = tuple(
            (tuple(x.shape), x.stride(), x.dtype, x.device) if isinstance(x, Tensor) else x
            for index, x in enumerate(inputs)
            if index not in self.own
        )
        lowered = self.kept.get(key)
        if lowered is None or not lowered.holds(inputs):
            lowered = self.kept[key] = self._lower(inputs)
        self.kept.move_to_end(key)
        while len(self.kept) > _KEPT:
            self.kept.popitem(last=False)
        return self.as_it_is(*inputs) if lowered.compiled is None else lowered.compiled(*given)

    def _given(self, inputs: Sequence[Any]) -> list[Tensor]:
        return [x for i, x in enumerate(inputs) if i not in self.own and isinstance(x, Tensor)]

    def _lower(self, inputs: Sequence[Any]) -> _Lowered:
        bound, given = _Bound(self.graph_module, inputs, self.own).eval(), self._given(inputs)
        try:
            captured = capture_for_inference(bound, given).graph_module
            graph_module = lower(captured, "static", given)
            sites = sum(LOWERED in node.meta for node in graph_module.graph.nodes)
            reason = "no convolution in it is shared and faster in another form"
        except Exception as error:  # noqa: BLE001 - whatever stops it: the model still has to run
            sites, reason = 0, f"{type(error).__name__}: {error}"
        if not sites:
            log.warning("nothing is lowered in this graph: %s", reason)
            return _Lowered(None, {}, {})
        log.info("%d convolutions lowered", sites)
        baked = {index: inputs[index].detach().clone() for index in _sources_of_constants(captured)}
        own = {index: inputs[index] for index in self.own}
        return _Lowered(torch.compile(graph_module, dynamic=False, **self.inductor), own, baked)


def _sources_of_constants(captured: GraphModule) -> list[int]:
    """The inputs, by their position, that the kernels and biases of shared convolutions are computed from."""
    calls = [verdict.call for verdict in judge_graph(captured, frozen=True) if verdict.finding.shared]
    stack: list[Any] = [value for call in calls for value in (call.weight, call.bias)]
    seen: set[Node] = set()
    while stack:
        value = stack.pop()
        if isinstance(value, Node) and value not in seen:
            seen.add(value)
            stack.extend(value.all_input_nodes)
    names = {str(node.target) for node in seen if node.op == "get_attr"}
    return sorted(int(name.removeprefix(_OWN)) for name in names if name.startswith(_OWN))


class _Bound(nn.Module):
    """The graph around the model's own tensors and open sizes, as a module of the other inputs."""

    def __init__(self, graph_module: GraphModule, inputs: Sequence[Any], own: set[int]) -> None:
        super().__init__()
        self.graph = graph_module
        self.fixed: dict[int, Any] = {}
        for index, value in enumerate(inputs):
            if index in own:
                self.fixed[index] = f"{_OWN}{index}"
                if isinstance(value, nn.Parameter):
                    self.register_parameter(f"{_OWN}{index}", value)
                else:
                    self.register_buffer(f"{_OWN}{index}", value)
            elif not isinstance(value, Tensor):
                self.fixed[index] = value
        self.count = len(inputs)

    def forward(self, *given: Tensor) -> Any:
        """The inputs that are tensors of the caller -> the outputs of the graph."""
        rest = iter(given)
        fixed = {i: getattr(self, v) if isinstance(v, str) else v for i, v in self.fixed.items()}
        return self.graph(*(fixed[i] if i in fixed else next(rest) for i in range(self.count)))
