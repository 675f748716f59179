"""``torch.compile(model, backend="fx_passes")``: shares, lowers by the static rules, and calls inductor.

torch.compile gives the graph with parameters and buffers as inputs. For inference, the graph is captured
again around the tensors that it is called with. Its shared convolutions are lowered, and inductor compiles
the result. The sizes that torch.compile keeps open stay open, so one lowered graph serves all of them. A
lowered kernel is a constant. So before every call, the tensors that kernels and biases are computed from are
compared with their values at the lowering. If they changed, the graph is lowered again.

For training, nothing is rewritten. Repeats that are separate parameters would each need their own gradient. A
kernel that is one parameter already is expanded in the graph, and its module chooses how
(``train/formulations.py``). To train one kernel, call ``share_kernels`` before ``torch.compile``.

With ``options={"tune": True}`` the lowerings are those that are fastest when inductor has compiled them. They
are timed in the first call. What was found is kept for other values of the weights.

If nothing is lowered, inductor compiles the graph as it is, and a warning of this logger gives the reason.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.export import Dim
from torch.fx import GraphModule

from fx_passes.bound_graph import OWN, Bound, placeholders_of, sizes_kept_open, sizes_of_tensors, sources
from fx_passes.capture.inference import capture_for_inference
from fx_passes.choose.plan_fits import carried_over
from fx_passes.errors import UsageError, one_line
from fx_passes.find.calls import find_calls
from fx_passes.find.find_kernels import judge_graph
from fx_passes.graph.input_check import InputCheck
from fx_passes.graph.tensors import storage_key
from fx_passes.graph.torch_internals import (
    SET_GRAD_ENABLED,
    BackendCompilerFailed,
    forward_pre_hooks,
    inductor,
    is_static_input,
    options_of_mode,
)
from fx_passes.lower import PLAN, SITE_OF_CALL, lower
from fx_passes.plan import Plan
from fx_passes.resample.lowerable import lowerable_sites

log = logging.getLogger(__name__)

# The number of lowered graphs that are kept, one for each set of numbers that are not open sizes of tensors.
# The least recently used goes first.
_KEPT = 16
# The option of this backend. inductor gets all others.
TUNE = "tune"

Compiled = Callable[..., Any]


def fx_passes(
    graph_module: GraphModule,
    example_inputs: Sequence[Any],
    *,
    mode: str | None = None,
    options: dict[str, Any] | None = None,
) -> Compiled:
    """Compile a graph. This is the backend, registered as ``fx_passes`` in the ``torch_dynamo_backends``
    entry points.

    Args:
        graph_module: from torch.compile. Every tensor and every open size is an input.
        example_inputs: the inputs of the call that is being compiled.
        mode, options: of ``torch.compile``, for inductor. The option ``tune`` is for this backend: True times
            the lowerings in the first call, for half a minute or longer.

    Returns:
        A function that computes the graph.

    Raises:
        UsageError: ``tune`` is neither True nor False.
    """
    patches = {**(options_of_mode(mode) if mode else {}), **(options or {})}
    tune = patches.pop(TUNE, False)
    if not isinstance(tune, bool):
        raise UsageError(f"the option 'tune' of the backend fx_passes must be True or False, got {tune!r}")
    reason = None
    if torch.is_grad_enabled() and any(isinstance(x, Tensor) and x.requires_grad for x in example_inputs):
        reason = (
            "it is compiled for training; to train one kernel, call share_kernels(model) before torch.compile"
        )
    elif next(find_calls(graph_module), None) is None:
        reason = "it has no convolution"
    elif any(node.target is SET_GRAD_ENABLED for node in graph_module.graph.nodes):
        reason = "it switches gradients on or off"
    if reason is not None:
        log.warning("nothing is lowered in this graph: %s", reason)
        return inductor(graph_module, example_inputs, patches)
    return _Inference(graph_module, patches, tune)


@dataclass(frozen=True)
class _Compiled:
    """A lowered graph.

    Args:
        compiled: takes the inputs that are not the model's own tensors. None: nothing was lowered.
        own: the model's own tensors that the graph was lowered with, by the position of the input.
        baked: copies of the tensors that its constants were computed from.
        checks: refuse inputs that the graph does not take.
    """

    compiled: Compiled | None
    own: dict[int, Any]
    baked: dict[int, Tensor]
    checks: Sequence[InputCheck] = ()

    def holds(self, inputs: Sequence[Any]) -> bool:
        """Whether the own tensors are the same objects, and the baked ones have the same values."""
        same = all(inputs[index] is tensor for index, tensor in self.own.items())
        return same and all(torch.equal(inputs[index], value) for index, value in self.baked.items())

    def takes(self, given: Sequence[Tensor]) -> bool:
        """Whether the lowered graph takes these inputs. Its capture may have closed an open size."""
        return all(check.accepts(given) for check in self.checks)


class _Inference:
    """Lowers the graph when it is called."""

    def __init__(self, graph_module: GraphModule, options: dict[str, Any], tune: bool = False) -> None:
        self.graph_module = graph_module
        self.tune = tune
        self.own = {i for i, node in enumerate(placeholders_of(graph_module)) if is_static_input(node)}
        opened = sizes_kept_open(graph_module, self.own)
        self.sizes = sizes_of_tensors(graph_module, opened)
        self.open = any(opened.values())
        # For ``*given`` of the graph that is captured.
        self.dynamic_shapes = (tuple(dict.fromkeys(dims, Dim.AUTO) for dims in opened.values()),)
        self.inductor: dict[str, Any] = {"backend": "inductor", "options": options or None}
        self.kept: OrderedDict[Any, _Compiled] = OrderedDict()
        self.plans: dict[Any, Plan] = {}  # that tuning found, by the keys of ``kept``
        self.as_it_is = torch.compile(graph_module, dynamic=self.open or None, **self.inductor)

    def __call__(self, *inputs: Any) -> Any:
        given = self._given(inputs)
        if len({storage_key(x) for x in given}) < len(given):
            log.warning("inputs share memory, and a second capture would lose that: the graph runs as it is")
            return self.graph_module(*inputs)
        # torch.compile has checked everything else, and calls another graph if it changes.
        key = tuple(x for i, x in enumerate(inputs) if not isinstance(x, Tensor) and i not in self.sizes)
        lowered = self.kept.get(key)
        if lowered is None or not lowered.holds(inputs):
            lowered = self.kept[key] = self._lower(inputs, key)
        self.kept.move_to_end(key)
        while len(self.kept) > _KEPT:
            oldest, _ = self.kept.popitem(last=False)
            self.plans.pop(oldest, None)
        if lowered.compiled is None or not lowered.takes(given):
            return self.as_it_is(*inputs)
        try:
            return lowered.compiled(*given)
        except BackendCompilerFailed as error:  # nothing has run, so nothing was written
            log.warning("nothing is lowered in this graph: %s", one_line(error, 200))
            self.kept[key] = _Compiled(None, lowered.own, lowered.baked)
            return self.as_it_is(*inputs)

    def _given(self, inputs: Sequence[Any]) -> list[Tensor]:
        return [x for i, x in enumerate(inputs) if i not in self.own and isinstance(x, Tensor)]

    def _lower(self, inputs: Sequence[Any], key: Any) -> _Compiled:
        bound = Bound(self.graph_module, inputs, self.own, self.sizes).eval()
        given = [x.detach() for x in self._given(inputs)]  # without the marks of the caller, which stay
        dynamic_shapes = self.dynamic_shapes if self.open else None
        try:
            captured = capture_for_inference(bound, given, dynamic_shapes=dynamic_shapes).graph_module
            graph_module = self._lowered(captured, given, key)
            sites = sum(SITE_OF_CALL in node.meta for node in graph_module.graph.nodes)
            reason = "no convolution in it is both shared and faster in another form"
        except Exception as error:  # noqa: BLE001 - the model must run in any case
            sites, reason = 0, f"{type(error).__name__}: {error}"
        if not sites:
            log.warning("nothing is lowered in this graph: %s", reason)
            return _Compiled(None, {}, {})
        log.info("%d convolutions lowered", sites)
        baked = {index: inputs[index].detach().clone() for index in _sources_of_constants(captured)}
        own = {index: inputs[index] for index in self.own}
        # inductor would compile the checks into its graph, and an input that they refuse would be an error.
        hooks = forward_pre_hooks(graph_module)
        checks = {key: hook for key, hook in hooks.items() if isinstance(hook, InputCheck)}
        for key in checks:
            hooks.pop(key)
        compiled = torch.compile(graph_module, dynamic=self.open, **self.inductor)
        return _Compiled(compiled, own, baked, list(checks.values()))

    def _lowered(self, captured: GraphModule, given: Sequence[Tensor], key: Any) -> GraphModule:
        """``captured`` lowered by the rules; or by what tuning found for this key, now or earlier."""
        if not self.tune:
            return lower(captured, "static", given)
        found = self.plans.get(key)
        plan = None if found is None else carried_over(found, lowerable_sites(captured)[0])
        if plan is not None:
            return lower(captured, plan, given)
        compiler = partial(torch.compile, dynamic=self.open, **self.inductor)
        graph_module = lower(captured, "tuned", given, runs=compiler)
        self.plans[key] = graph_module.meta[PLAN]
        return graph_module


def _sources_of_constants(captured: GraphModule) -> list[int]:
    """The positions of the inputs that kernels and biases of shared convolutions are computed from."""
    calls = [verdict.call for verdict in judge_graph(captured, frozen=True) if verdict.finding.shared]
    seen = sources(value for call in calls for value in (call.weight, call.bias))
    names = {str(node.target) for node in seen if node.op == "get_attr"}
    return sorted(int(name.removeprefix(OWN)) for name in names if name.startswith(OWN))
