"""The shared convolutions that can be computed in another way, with what is needed to do it, or why not."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from fx_passes.find.find_kernels import judge_graph
from fx_passes.find.verdict import Verdict
from fx_passes.graph.constants import NotConstant, fold
from fx_passes.graph.tensors import State
from fx_passes.graph.writes import writes_at_run_time
from fx_passes.records import Finding
from fx_passes.resample.axes import Resample, resample_of
from fx_passes.resample.siblings import independent_groups
from fx_passes.resample.surroundings import Surroundings, absorb


@dataclass(frozen=True)
class Site:
    """A shared convolution that can be lowered: what it computes, and where it lies in its graph.

    It holds names, no nodes: it is the same in every copy of the graph.

    Args:
        resample: what it computes, with the surroundings that were absorbed.
        kernel: (rows, columns, *taps) in the order of a correlation.
        bias: (rows,) or (groups * rows,), or None.
        key: the same for sites that are the same; what is chosen for one holds for the other.
        siblings: how many independent sites of the graph are the same as this one, with itself: one call may
            compute them all.
        conv: the node of the convolution.
        source, end: it reads the value of the one, and replaces everything down to the other.
    """

    finding: Finding
    resample: Resample
    kernel: Tensor
    bias: Tensor | None
    key: str
    conv: str
    source: str
    end: str
    siblings: int = 1

    @property
    def id(self) -> str:
        return self.finding.id

    @property
    def transposed(self) -> bool:
        """The model has a transposed convolution; another may fill in zeros by itself."""
        return self.finding.site.geometry.transposed


def lowerable_sites(
    graph_module: GraphModule,
    verdicts: Sequence[Verdict] | None = None,
    *,
    stays: Callable[[Node], str | None] | None = None,
    any_order: bool = False,
) -> tuple[list[Site], dict[str, str]]:
    """The shared convolutions of a graph that can be lowered, and for the others, by id, why not.

    Args:
        verdicts: what ``judge_graph`` says of the graph, where that is known already.
        stays: why a convolution is not to be lowered, None where it may be.
        any_order: the order of tensors in memory does not matter.
    """
    state = State(graph_module)
    movable = not writes_at_run_time(graph_module)
    sites, reasons, taken = [], {}, set[Node]()
    for verdict in judge_graph(graph_module, frozen=True) if verdicts is None else verdicts:
        if verdict.finding.shared:
            reason = stays(verdict.call.node) if stays is not None else None
            site = reason or _site(verdict, state, taken if movable else None, any_order)
            if isinstance(site, str):
                reasons[verdict.finding.id] = site
            else:
                sites.append(site)
    return _with_siblings(sites, graph_module) if movable else sites, reasons


def _with_siblings(sites: list[Site], graph_module: GraphModule) -> list[Site]:
    """The sites, those that can be computed together knowing how many they are."""
    static = [index for index, site in enumerate(sites) if _has_batch(site.resample)]
    nodes = {node.name: node for node in graph_module.graph.nodes}
    known = [(sites[i].key, nodes[sites[i].source], nodes[sites[i].end]) for i in static]
    for group in independent_groups(known):
        for index in (static[i] for i in group):
            site = sites[index]
            key = _key(site.resample, site.kernel, site.bias, len(group))
            sites[index] = replace(site, siblings=len(group), key=key)
    return sites


def _has_batch(resample: Resample) -> bool:
    """Whether the first size of input and output is the batch, so that inputs can be put one after the
    other."""
    lengths = {len(resample.in_shape), len(resample.out_shape)}
    same = resample.in_shape[0] == resample.out_shape[0]
    return resample.static and lengths == {resample.dim + 2} and same


def _site(verdict: Verdict, state: State, taken: set[Node] | None, any_order: bool) -> Site | str:
    finding, call = verdict.finding, verdict.call
    shared, geometry = finding.kernel, finding.site.geometry
    assert shared is not None
    source = call.node.args[0] if call.node.args else call.node.kwargs.get("input")
    before = source.meta.get("val") if isinstance(source, Node) else None
    after = call.node.meta.get("val")
    if not isinstance(source, Node) or not isinstance(before, Tensor) or not isinstance(after, Tensor):
        return "the shape of its input is not known; give example inputs"
    if not any_order and not after.is_contiguous():
        return "its output is not laid out in the order of its dimensions, which what follows may rely on"
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
    shapes = sizes_of(before), sizes_of(after)
    rows, columns = kernel.shape[:2]
    resample = resample_of(geometry, shared.groups, rows, columns, shared.block_diagonal, shapes)
    if taken is None:
        around = Surroundings(source, call.node, resample)
    else:
        around = absorb(call.node, source, resample, taken)
        if not _takes(kernel, around.resample.scale) or (
            bias is not None and not _takes(bias, around.resample.scale)
        ):
            around = Surroundings(source, call.node, resample)
    return Site(
        finding,
        around.resample,
        kernel,
        bias,
        key=_key(around.resample, kernel, bias),
        conv=call.node.name,
        source=around.source.name,
        end=around.end.name,
    )


def _takes(values: Tensor, scale: float) -> bool:
    """Whether ``values`` times ``scale`` neither overflow nor lose bits to underflow in their own type."""
    scaled = (values.double() * scale).abs()
    limits = torch.finfo(values.dtype)
    return bool(((scaled == 0) | ((scaled >= limits.tiny) & (scaled <= limits.max))).all()) or scale == 1.0


def sizes_of(value: Tensor) -> tuple[int | None, ...]:
    """The shape of a captured value, None for an open size."""
    return tuple(size if isinstance(size, int) else None for size in value.shape)


def _values(verdict: Verdict, state: State) -> Tensor | str:
    """The kernel of one group, laid out as in the model, or why its values are not known."""
    shared = verdict.finding.kernel
    assert shared is not None
    value = _constant(verdict.call.weight, verdict, state)
    if isinstance(value, str):
        return f"the values of its kernel are not known: {value}"
    return value[tuple(slice(size) for size in shared.shape)].clone()


def _bias(verdict: Verdict, state: State) -> Tensor | str | None:
    if verdict.call.bias is None:
        return None
    value = _constant(verdict.call.bias, verdict, state)
    if isinstance(value, str):
        return f"its bias is no constant: {value}"
    shared = verdict.finding.kernel
    assert shared is not None
    rows = shared.shape[verdict.finding.site.geometry.transposed]  # torch's layout has columns first there
    repeats = verdict.finding.groups > 1 and torch.equal(value, value[:rows].repeat(len(value) // rows))
    return value[:rows].clone() if repeats else value.clone()


def _constant(value: Node | str, verdict: Verdict, state: State) -> Tensor | str:
    """What the convolution is given as ``value``, conversions and all, or why it is no constant."""
    try:
        if isinstance(value, Node):
            constant = fold(value, verdict.call.node, state, frozen=True)
        else:
            constant = state.tensors[value]
    except NotConstant as unknown:
        return unknown.reason
    except Exception as error:  # noqa: BLE001 - the model's own operators, run here on constants
        return f"computing it failed: {error}"
    return "it is on the meta device" if constant.is_meta else constant.detach()


def _key(resample: Resample, kernel: Tensor, bias: Tensor | None, siblings: int = 1) -> str:
    said = repr(resample).removesuffix(")") + f", siblings={siblings})"  # as plans have it
    digest = hashlib.sha256(f"{said} {kernel.dtype} {tuple(kernel.shape)}".encode())
    for tensor in (kernel, bias):
        digest.update(b"" if tensor is None else tensor.double().contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
