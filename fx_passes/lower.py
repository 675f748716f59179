"""Shared convolutions of a graph -> modules that compute them in another way, as a plan says.

Before:  pad, conv(x, expand(kernel)), slice        after:  one ``call_module`` of a module of ``lowerings/``

Lowering freezes the kernels: it is for inference. Sites that are the same (geometry, kernel, bias, shape)
call one module. What the plan leaves is shared as by ``share_kernels``.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node
from torch.utils import _pytree as pytree

from fx_passes import rewrite
from fx_passes.absorb import Surroundings, absorb
from fx_passes.capture import capture, clone_module
from fx_passes.choose import static_plan
from fx_passes.find import judge
from fx_passes.lowerings import build
from fx_passes.plan import Plan, require_fitting
from fx_passes.records import Exactness, Finding
from fx_passes.resample import Resample, resample_of
from fx_passes.share import share_in_place
from fx_passes.siblings import independent_groups
from fx_passes.verdict import Verdict
from fx_passes.weights.fold import NotConstant, fold
from fx_passes.weights.operators import SHAPE_ONLY, base_name, written_nodes
from fx_passes.weights.origin import tensor_of
from fx_passes.weights.state import State

log = logging.getLogger(__name__)

# In the ``meta`` of a call of a lowered module: the id of the site, and the node whose value it computes.
LOWERED = "fx_passes_lowered"


@dataclass(frozen=True)
class Site:
    """A shared convolution that can be lowered: what it computes, and the live nodes it lies between.

    Args:
        kernel: (rows, columns, *taps) in the order of a correlation.
        bias: (rows,) or (groups * rows,), or None.
        key: the same for sites that are the same; what is chosen for one holds for the other.
    """

    finding: Finding
    conv: Node
    around: Surroundings
    kernel: Tensor
    bias: Tensor | None
    key: str

    @property
    def id(self) -> str:
        return self.finding.id

    @property
    def resample(self) -> Resample:
        return self.around.resample


def lower(
    model: nn.Module | ExportedProgram,
    plan: Plan | Literal["static"] = "static",
    example_inputs: Sequence[Any] | None = None,
    *,
    exactness: Exactness = "finite",
) -> GraphModule:
    """``model`` for inference, each shared convolution computed as ``plan`` says.

    Args:
        model: an ``nn.Module``, ``GraphModule`` or ``ExportedProgram`` in evaluation mode; not changed.
        plan: what to do at each site, or ``"static"`` for the rules that look at geometry alone.
        example_inputs: positional arguments; shapes come from them, and without shapes nothing is lowered.
        exactness: the least exact that ``"static"`` may choose.

    Raises:
        CaptureError: no route gave a graph of the model.
        UsageError: the plan was made for another model.

    Example:
        >>> conv = nn.Conv2d(3, 3, 9, padding=4, groups=3, bias=False)
        >>> _ = conv.weight.data.copy_(torch.ones(1, 1, 9, 9))
        >>> x = torch.rand(1, 3, 64, 64)
        >>> lowered = lower(nn.Sequential(conv), "static", (x,))
        >>> torch.allclose(lowered(x), conv(x), atol=1e-4), type(lowered.lowered_0).__module__
        (True, 'fx_passes.lowerings.separable_polyphase')
    """
    captured = capture(model, example_inputs).graph_module
    if captured is model:
        captured = clone_module(captured)
    rewrite.inline_modes(captured)
    sites, _ = lowerable_sites(captured)
    chosen = static_plan(sites, exactness) if plan == "static" else plan
    lower_in_place(captured, sites, chosen)
    share_in_place(captured)
    _check_shapes_only(captured)
    return captured


def _check_shapes_only(graph_module: GraphModule) -> None:
    """Put a check of the input shapes in the place of torch.export's, which takes longer than a small
    site."""
    exported = [hook for hook in graph_module._forward_pre_hooks.values() if "export" in hook.__module__]
    if exported and len(exported) == len(graph_module._forward_pre_hooks):
        graph_module._forward_pre_hooks.clear()
        graph_module._forward_pre_hooks_with_kwargs.clear()
        values = [n.meta.get("val") for n in graph_module.graph.nodes if n.op == "placeholder"]
        shapes = tuple(_sizes(value) if isinstance(value, Tensor) else None for value in values)
        graph_module.register_forward_pre_hook(_ShapeCheck(shapes), with_kwargs=True)


@dataclass(frozen=True)
class _ShapeCheck:
    """A forward pre-hook: tensors come in the shapes the graph was captured with."""

    shapes: tuple[tuple[int | None, ...] | None, ...]

    def __call__(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        leaves = pytree.tree_leaves((args, kwargs))
        for leaf, shape in zip(leaves, self.shapes, strict=False):
            if shape is None or not isinstance(leaf, Tensor):
                continue
            if len(shape) != leaf.ndim or any(
                want is not None and want != size for want, size in zip(shape, leaf.shape, strict=True)
            ):
                raise ValueError(f"the graph was captured for shape {shape}, got {tuple(leaf.shape)}")


def lowerable_sites(
    graph_module: GraphModule, verdicts: Sequence[Verdict] | None = None
) -> tuple[list[Site], dict[str, str]]:
    """The shared convolutions of a graph that can be lowered, and for the others, by id, why not.

    Args:
        verdicts: what ``judge`` says of the graph, where that is known already.
    """
    state = State(graph_module)
    movable = not _writes_at_run_time(graph_module)
    sites, reasons = [], {}
    for verdict in judge(graph_module) if verdicts is None else verdicts:
        if verdict.finding.shared:
            site = _site(verdict, state, graph_module, movable)
            if isinstance(site, str):
                reasons[verdict.finding.id] = site
            else:
                sites.append(site)
    return _with_siblings(sites) if movable else sites, reasons


def _with_siblings(sites: list[Site]) -> list[Site]:
    """The sites, those that can be computed together knowing how many they are."""
    known = [(site.key, site.around.source, site.around.end) for site in sites if site.resample.static]
    static = [index for index, site in enumerate(sites) if site.resample.static]
    for group in independent_groups(known):
        for index in (static[i] for i in group):
            site = sites[index]
            resample = replace(site.resample, siblings=len(group))
            key = _key(resample, site.kernel, site.bias)
            sites[index] = replace(site, around=replace(site.around, resample=resample), key=key)
    return sites


def _writes_at_run_time(graph_module: GraphModule) -> bool:
    """Whether anything is written into what depends on an input: reading it elsewhere might be too late."""
    changing: set[Node] = set()
    for node in graph_module.graph.nodes:
        depends = any(before in changing for before in node.all_input_nodes)
        if node.op == "placeholder" or (depends and base_name(node) not in SHAPE_ONLY):
            changing.add(node)
            if node.op != "call_module" and written_nodes(node):
                return True
    return False


def _site(verdict: Verdict, state: State, graph_module: GraphModule, movable: bool) -> Site | str:
    finding, call = verdict.finding, verdict.call
    shared, geometry = finding.kernel, finding.site.geometry
    assert shared is not None
    if before_batch_norm(call.node, graph_module):
        return "a batch norm follows, whose scale the exporter multiplies into the weight"
    source = call.node.args[0] if call.node.args else call.node.kwargs.get("input")
    before = source.meta.get("val") if isinstance(source, Node) else None
    after = call.node.meta.get("val")
    if not isinstance(source, Node) or not isinstance(before, Tensor) or not isinstance(after, Tensor):
        return "the shape of its input is not known; give example inputs"
    kernel = _values(verdict, state)
    if isinstance(kernel, str):
        return kernel
    bias = _bias(verdict, state)
    if isinstance(bias, str):
        return bias
    if {before.dtype, after.dtype} != {kernel.dtype} or not kernel.is_floating_point():
        return f"input and kernel do not both have the type {kernel.dtype}"
    if geometry.transposed:
        kernel = kernel.transpose(0, 1).flip(*range(2, kernel.ndim))
    shapes = _sizes(before), _sizes(after)
    rows, columns = kernel.shape[:2]
    resample = resample_of(geometry, shared.groups, rows, columns, shared.block_diagonal, shapes)
    around = absorb(call.node, source, resample) if movable else Surroundings(source, call.node, resample)
    return Site(finding, call.node, around, kernel, bias, _key(around.resample, kernel, bias))


def _sizes(value: Tensor) -> tuple[int | None, ...]:
    return tuple(size if isinstance(size, int) else None for size in value.shape)


def _values(verdict: Verdict, state: State) -> Tensor | str:
    """The kernel of one group, laid out as in the model, or why its values are not known."""
    shared, weight = verdict.finding.kernel, verdict.call.weight
    assert shared is not None
    value = verdict.kernel if verdict.kernel is not None else tensor_of(weight, state)
    if value is None:
        assert isinstance(weight, Node)
        try:
            value = fold(weight, verdict.call.node, state, frozen=True)
        except NotConstant as unknown:
            return f"the values of its kernel are only known at run time: {unknown.reason}"
        except Exception as error:  # the model's own operators, run here on constants
            return f"its kernel could not be computed: {error}"
    if value.is_meta:
        return "its kernel is on the meta device and has no values"
    return value.detach()[tuple(slice(size) for size in shared.shape)].clone()


def _bias(verdict: Verdict, state: State) -> Tensor | str | None:
    bias = verdict.call.bias
    if bias is None or verdict.bias_kernel is not None:
        return verdict.bias_kernel
    value = tensor_of(bias, state)
    if value is None:
        assert isinstance(bias, Node)
        try:
            value = fold(bias, verdict.call.node, state, frozen=True)
        except Exception as error:  # whatever it is, it is not a constant
            return f"its bias is no constant: {error}"
    return value.detach().clone()


def _key(resample: Resample, kernel: Tensor, bias: Tensor | None) -> str:
    digest = hashlib.sha256(f"{resample} {kernel.dtype} {tuple(kernel.shape)}".encode())
    for tensor in (kernel, bias):
        digest.update(b"" if tensor is None else tensor.double().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def before_batch_norm(conv: Node, graph_module: GraphModule) -> bool:
    """Whether the only user of a convolution is a batch norm in evaluation mode, which exporters fold."""
    if len(conv.users) != 1:
        return False
    node = next(iter(conv.users))
    if node.op == "call_module":
        module = graph_module.get_submodule(str(node.target))
        return isinstance(module, nn.modules.batchnorm._BatchNorm) and not module.training
    if node.target is torch.ops.aten.batch_norm.default:
        return not node.args[5]
    return node.target is torch.ops.aten._native_batch_norm_legit_no_training.default


def sites_on_copy(sites: Sequence[Site], graph_module: GraphModule) -> list[Site]:
    """The same sites in a copy of the graph."""
    nodes = {node.name: node for node in graph_module.graph.nodes}
    copies = []
    for site in sites:
        around = replace(site.around, source=nodes[site.around.source.name], end=nodes[site.around.end.name])
        copies.append(replace(site, conv=nodes[site.conv.name], around=around))
    return copies


def lower_in_place(graph_module: GraphModule, sites: Sequence[Site], plan: Plan) -> int:
    """Do what ``plan`` says in a graph module that nobody else holds; how many sites were lowered.

    Raises:
        UsageError: the plan was made for another model.
    """
    require_fitting(plan, sites)
    modules: dict[tuple[str, str], str] = {}
    merged: dict[str, list[Site]] = {}
    lowered = 0
    for site in sites:
        proposal = plan.choices[site.id].proposal
        if proposal is None:
            continue
        lowered += 1
        name = modules.get((site.key, proposal.name))
        if name is None:
            name = modules[site.key, proposal.name] = f"lowered_{len(modules)}"
            module = build(proposal, site.resample, site.kernel, site.bias)
            module.key = site.key
            graph_module.add_submodule(name, module)
        if proposal.lowering == "sibling_merge":
            merged.setdefault(name, []).append(site)
            continue
        node = rewrite.insert_module(graph_module, name, site.conv, site.around.source, site.around.end)
        node.meta[LOWERED] = site.id, site.around.end.name
    for name, group in merged.items():
        ends = [site.around.end for site in group]
        nodes = rewrite.insert_merged(name, group[0].conv, [site.around.source for site in group], ends)
        for site, end, node in zip(group, ends, nodes, strict=True):
            node.meta[LOWERED] = site.id, end.name
    if lowered:
        graph_module.delete_all_unused_submodules()
        graph_module.graph.lint()
        graph_module.recompile()
    return lowered
