"""Shared convolutions of a graph -> modules that compute them in another way, as a plan says.

Before:  pad, conv(x, expand(kernel)), slice        after:  one ``call_module`` of a module of ``lowerings/``

Lowering freezes the kernels: the result is for inference. Equal sites (geometry, kernel, bias, shape) call
one module. The other sites are shared as by ``share_kernels``.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Literal

from torch import nn
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node
from torch.fx.passes.infra.pass_base import PassBase, PassResult

from fx_passes.capture.inference import capture_for_inference
from fx_passes.choose.plan_fits import require_fitting
from fx_passes.choose.static_rules import static_plan
from fx_passes.graph import edit
from fx_passes.graph.input_check import check_inputs
from fx_passes.graph.torch_internals import guards_of
from fx_passes.lowerings import build
from fx_passes.plan import Plan
from fx_passes.records import Exactness
from fx_passes.resample.lowerable import lowerable_sites
from fx_passes.resample.site import Site
from fx_passes.share.share_kernels import share_in_place

log = logging.getLogger(__name__)

# In the ``meta`` of a call of a lowered module: the id of the site, and the node whose value it computes.
SITE_OF_CALL = "fx_passes_lowered"


def lower(
    model: nn.Module | ExportedProgram,
    plan: Plan | Literal["static"] = "static",
    example_inputs: Sequence[Any] | None = None,
    *,
    exactness: Exactness = "finite",
    dynamic_shapes: Any = None,
) -> GraphModule:
    """``model`` for inference, with each shared convolution computed as ``plan`` says.

    Args:
        model: an ``nn.Module``, ``GraphModule`` or ``ExportedProgram`` in evaluation mode; not changed.
        plan: what to do at each site, or ``"static"`` for the rules that look only at the geometry.
        example_inputs: positional arguments. The shapes come from them; without shapes nothing is lowered.
        exactness: the least exact that ``"static"`` may choose.
        dynamic_shapes: which sizes stay open, as for ``torch.onnx.export``.

    Raises:
        CaptureError: no route gave a graph of the model, or the model fixes a size that should stay open.
        UsageError: the plan was made for another model.

    Example:
        >>> import torch
        >>> conv = nn.Conv2d(3, 3, 9, padding=4, groups=3, bias=False)
        >>> _ = conv.weight.data.copy_(torch.ones(1, 1, 9, 9))
        >>> x = torch.rand(1, 3, 64, 64)
        >>> lowered = lower(nn.Sequential(conv), "static", (x,))
        >>> torch.allclose(lowered(x), conv(x), atol=1e-4), type(lowered.lowered_0).__module__
        (True, 'fx_passes.lowerings.separable_polyphase')
    """
    captured = capture_for_inference(model, example_inputs, dynamic_shapes=dynamic_shapes).graph_module
    _lower_and_share(captured, plan, exactness)
    check_inputs(captured, _guards_of(model))
    return captured


class Lower(PassBase):
    """The function ``lower`` as a ``torch.fx`` pass, for a ``PassManager``.

    Args:
        plan, exactness: as in ``lower``.

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

    def __init__(self, plan: Plan | Literal["static"] = "static", *, exactness: Exactness = "finite") -> None:
        self.plan, self.exactness = plan, exactness

    def call(self, graph_module: GraphModule) -> PassResult:
        captured = capture_for_inference(graph_module).graph_module
        if not _lower_and_share(captured, self.plan, self.exactness):
            return PassResult(graph_module, False)
        check_inputs(captured)
        return PassResult(captured, True)


def _lower_and_share(graph_module: GraphModule, plan: Plan | Literal["static"], exactness: Exactness) -> bool:
    """Lower as the plan says and share the other sites, in place. Returns whether anything was done."""
    sites, _ = lowerable_sites(graph_module)
    lowered = lower_in_place(graph_module, sites, static_plan(sites, exactness) if plan == "static" else plan)
    shared, _ = share_in_place(graph_module)
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
