"""Shared convolutions of a graph -> modules that compute them in another way, as a plan says.

Before:  pad, conv(x, expand(kernel)), slice        after:  one ``call_module`` of a module of ``lowerings/``

Lowering freezes the kernels: the result is for inference. Equal sites (geometry, kernel, bias, shape) call
one module. The other sites are shared as by ``share_kernels``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

from torch import nn
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node
from torch.fx.passes.infra.pass_base import PassBase, PassResult

from fx_passes.capture.inference import capture_for_inference
from fx_passes.choose.plan_fits import require_fitting
from fx_passes.choose.static_rules import static_plan
from fx_passes.errors import UsageError
from fx_passes.graph import edit
from fx_passes.graph.clone import clone_module, copy_module
from fx_passes.graph.input_check import check_inputs
from fx_passes.graph.plain_calls import call_plainly
from fx_passes.graph.torch_internals import guards_of
from fx_passes.graph.writes import writes_at_run_time
from fx_passes.lowerings import build
from fx_passes.plan import Plan
from fx_passes.records import Exactness
from fx_passes.resample.lowerable import lowerable_sites
from fx_passes.resample.site import Site
from fx_passes.resample.whole_weights import freeze_weights
from fx_passes.share.share_kernels import share_in_place
from fx_passes.tune.in_torch import Compiler, Runs
from fx_passes.tune.start import tuner

log = logging.getLogger(__name__)

# In the ``meta`` of a call of a lowered module: the id of the site, and the node whose value it computes.
SITE_OF_CALL = "fx_passes_lowered"
# In the ``meta`` of a lowered graph module: the plan.
PLAN = "fx_passes_plan"


def lower(
    model: nn.Module | ExportedProgram,
    plan: Plan | Literal["static", "tuned"] = "static",
    example_inputs: Sequence[Any] | None = None,
    *,
    exactness: Exactness = "finite",
    dynamic_shapes: Any = None,
    runs: Runs | Compiler = "eager",
    budget: float = 30.0,
) -> GraphModule:
    """``model`` for inference, with each shared convolution computed as ``plan`` says.

    Args:
        model: an ``nn.Module``, ``GraphModule`` or ``ExportedProgram`` in evaluation mode; not changed.
        plan: what to do at each site; ``"static"`` for the rules that look only at the geometry; ``"tuned"``
            for what measures fastest here, on the device and with the number of threads of torch.
        example_inputs: positional arguments. The shapes come from them; without shapes nothing is lowered.
            Open sizes are tuned at these shapes.
        exactness: the least exact that ``"static"`` and ``"tuned"`` may choose.
        dynamic_shapes: which sizes stay open, as for ``torch.onnx.export``.
        runs: of ``"tuned"``: how the result will run. ``"compiled"``: by ``torch.compile``, or give the
            function that compiles a graph module. To compile the result is left to the caller.
        budget: of ``"tuned"``: seconds, compilations included. What has begun is ended. What was not timed
            is not lowered.

    Returns:
        The lowered graph. ``meta["fx_passes_plan"]`` is the plan that was followed. Given as ``plan``, it
        makes the same graph without a clock.

    A tuned graph is only lowered if it is faster than the captured graph beyond the noise of the machine.
    Otherwise it is the captured graph.

    Raises:
        CaptureError: no route gave a graph of the model, or the model fixes a size that should stay open.
        UsageError: an argument is wrong, the plan was made for another model, or times cannot be taken.

    Example:
        >>> import torch
        >>> conv = nn.Conv2d(3, 3, 9, padding=4, groups=3, bias=False)
        >>> _ = conv.weight.data.copy_(torch.ones(1, 1, 9, 9))
        >>> x = torch.rand(1, 3, 64, 64)
        >>> lowered = lower(nn.Sequential(conv), "static", (x,))
        >>> torch.allclose(lowered(x), conv(x), atol=1e-4), type(lowered.lowered_0).__module__
        (True, 'fx_passes.lowerings.separable_polyphase')
    """
    make = _maker(plan, exactness, runs, budget)
    captured = capture_for_inference(model, example_inputs, dynamic_shapes=dynamic_shapes).graph_module
    sites, _ = lowerable_sites(captured)
    guards = _guards_of(model)
    _carry_out(captured, sites, make(captured, sites, example_inputs, guards), guards)
    return captured


class Lower(PassBase):
    """The function ``lower`` as a ``torch.fx`` pass, for a ``PassManager``.

    Args:
        plan, exactness, runs, budget: as in ``lower``. Tuning draws inputs at random.

    Shapes come from ``meta["val"]`` of the nodes, as ``torch.export`` writes it. Without shapes nothing is
    lowered, but kernels are shared. The result is a new graph module; the given one is not changed.

    Example:
        >>> import torch
        >>> conv = nn.Conv2d(3, 3, 9, padding=4, groups=3, bias=False)
        >>> _ = conv.weight.data.copy_(torch.ones(1, 1, 9, 9))
        >>> x = torch.rand(1, 3, 64, 64)
        >>> result = Lower()(torch.export.export(conv, (x,)).module())
        >>> result.modified, torch.allclose(result.graph_module(x), conv(x), atol=1e-4)
        (True, True)
    """

    def __init__(
        self,
        plan: Plan | Literal["static", "tuned"] = "static",
        *,
        exactness: Exactness = "finite",
        runs: Runs | Compiler = "eager",
        budget: float = 30.0,
    ) -> None:
        self.plan, self.exactness = plan, exactness
        self.make = _maker(plan, exactness, runs, budget)

    def call(self, graph_module: GraphModule) -> PassResult:
        captured = capture_for_inference(graph_module).graph_module
        sites, _ = lowerable_sites(captured)
        if not _carry_out(captured, sites, self.make(captured, sites, None, None)):
            return PassResult(graph_module, False)
        return PassResult(captured, True)


# Makes the plan for a graph with its sites, given example inputs and guards.
_Maker = Callable[[GraphModule, Sequence[Site], Sequence[Any] | None, Any], Plan]


def _maker(
    plan: Plan | Literal["static", "tuned"], exactness: Exactness, runs: Runs | Compiler, budget: float
) -> _Maker:
    """What makes the plan that the caller asked for.

    Raises:
        UsageError: an argument is wrong.
    """
    tune = tuner(runs, budget, exactness)
    if isinstance(plan, Plan):
        return lambda graph_module, sites, inputs, guards: plan
    if plan == "static":
        return lambda graph_module, sites, inputs, guards: static_plan(sites, exactness)
    if plan == "tuned":
        return lambda graph_module, sites, inputs, guards: tune(
            graph_module, sites, inputs, partial(_carried_out, graph_module, sites, guards)
        )
    raise UsageError(f"plan must be 'static', 'tuned' or a Plan, got {plan!r}")


def _carried_out(graph_module: GraphModule, sites: Sequence[Site], guards: Any, plan: Plan) -> GraphModule:
    """A graph module that does what ``plan`` says. To run it changes no tensor of the other one."""
    writes = writes_at_run_time(graph_module)
    made: GraphModule = copy_module(graph_module) if writes else clone_module(graph_module)
    _carry_out(made, sites, plan, guards)
    return made


def _carry_out(graph_module: GraphModule, sites: Sequence[Site], plan: Plan, guards: Any = None) -> bool:
    """Lower as the plan says and share the other sites, in place. Returns whether anything was done.

    Args:
        guards: the conditions on several open sizes at once.
    """
    lowered = lower_in_place(graph_module, sites, plan)
    shared = share_in_place(graph_module)[0] if plan.shares else freeze_weights(graph_module, sites)
    check_inputs(graph_module, guards)
    call_plainly(graph_module)
    graph_module.meta[PLAN] = plan
    return bool(lowered) or shared


def _guards_of(model: nn.Module | ExportedProgram) -> Any:
    """What torch.export assumed of several open sizes at once. A capture leaves it out. None: nothing."""
    return guards_of(model) if isinstance(model, ExportedProgram) else None


def lower_in_place(graph_module: GraphModule, sites: Sequence[Site], plan: Plan) -> int:
    """Do what ``plan`` says, in a graph module that nobody else holds. Returns how many sites were lowered.

    Raises:
        UsageError: the plan was made for another model.
    """
    require_fitting(plan, sites)
    modules: dict[tuple[str, str], str] = {}
    merged: dict[str, list[Site]] = {}
    # The node of each name. If the end of a site has been replaced by a call, it is the call.
    nodes = {node.name: node for node in graph_module.graph.nodes}
    lowered = 0
    for site in sites:
        proposal = plan.choices[site.id].proposal
        if proposal is None:
            continue
        lowered += 1
        name = modules.get((site.key, proposal.name))
        if name is None:
            name = modules[site.key, proposal.name] = _free_name(graph_module)
            module = build(proposal, site.resample, site.kernel, site.bias, site.siblings)
            module.key = site.key
            graph_module.add_submodule(name, module)
        if proposal.merged:
            merged.setdefault(name, []).append(site)
            continue
        node = edit.insert_module(graph_module, name, nodes[site.conv], nodes[site.source], nodes[site.end])
        node.meta[SITE_OF_CALL] = site.id, site.end
        nodes[site.end] = node
    for name, group in merged.items():
        _merge(name, group, nodes)
    if lowered:
        graph_module.delete_all_unused_submodules()
        graph_module.graph.lint()
        graph_module.recompile()
    return lowered


def _free_name(graph_module: GraphModule) -> str:
    number = 0
    while hasattr(graph_module, f"lowered_{number}"):
        number += 1
    return f"lowered_{number}"


def _merge(name: str, group: Sequence[Site], nodes: dict[str, Node]) -> None:
    """Compute siblings by one call of the submodule ``name``."""
    ends = [nodes[site.end] for site in group]
    sources = [nodes[site.source] for site in group]
    parts = edit.insert_merged(name, nodes[group[0].conv], sources, ends)
    for site, part in zip(group, parts, strict=True):
        part.meta[SITE_OF_CALL] = site.id, site.end
        nodes[site.end] = part
