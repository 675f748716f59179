"""The shared convolutions that can be lowered, and a refusal for each of the others."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from fx_passes.find.find_kernels import judge_graph
from fx_passes.find.verdict import KeepScaled, Verdict
from fx_passes.graph.tensors import State
from fx_passes.graph.writes import writes_at_run_time
from fx_passes.records import Finding, Refusal
from fx_passes.resample.absorb import WITHIN, Claims, Surroundings, absorb
from fx_passes.resample.axes import Resample, resample_of
from fx_passes.resample.lengths import shape_of
from fx_passes.resample.outside import left_outside
from fx_passes.resample.siblings import independent_groups
from fx_passes.resample.values import kernel_and_bias, refuse


@dataclass(frozen=True)
class Site:
    """A shared convolution that can be lowered: what it computes, and its place in the graph.

    It holds names of nodes, no nodes. So it is valid in every copy of the graph.

    Args:
        finding: the verdict on the convolution.
        resample: what it computes, with the surroundings that were absorbed.
        kernel: (rows, columns, *taps), in the order of a correlation.
        bias: (rows,) or (groups * rows,), or None.
        key: equal sites have equal keys; what is chosen for one holds for all of them.
        conv: the name of the node of the convolution.
        source, end: the site reads the value of ``source`` and replaces all nodes from there to ``end``.
        siblings: how many sites of the graph, this one included, equal this one and do not depend on each
            other.
        shapes: of the input, if it has open sizes: those at which the lowering should be fast, as far as they
            are known. That of the example is the first.
        outside: why a Pad in front of it or a Slice behind it is not absorbed, a sentence for each.
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
    shapes: tuple[tuple[int, ...], ...] = ()
    outside: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        return self.finding.id

    @property
    def transposed(self) -> bool:
        """Whether the model has a transposed convolution here. An ordinary one may have zeros put in by the
        model."""
        return self.finding.site.geometry.transposed


def lowerable_sites(
    graph_module: GraphModule,
    verdicts: Sequence[Verdict] | None = None,
    *,
    any_order: bool = False,
) -> tuple[list[Site], dict[str, Refusal]]:
    """The shared convolutions of a graph that can be lowered; for each of the others, by id, the refusal.

    Args:
        verdicts: what ``judge_graph`` says of the graph; computed if it is not given.
        any_order: the order of the output in memory does not matter.
    """
    state = State(graph_module)
    movable = not writes_at_run_time(graph_module)
    verdicts = judge_graph(graph_module, frozen=True) if verdicts is None else verdicts
    claims = Claims(frozenset(verdict.call.node for verdict in verdicts if verdict.finding.shared))
    sites, refusals = [], {}
    for verdict in verdicts:
        if verdict.finding.shared:
            site = _site(verdict, state, claims if movable else None, any_order)
            if isinstance(site, Refusal):
                refusals[verdict.finding.id] = site
            else:
                sites.append(site)
    return _with_siblings(sites, graph_module) if movable else sites, refusals


def _with_siblings(sites: list[Site], graph_module: GraphModule) -> list[Site]:
    """The sites, of which those that can be computed together have their ``siblings``."""
    nodes = {node.name: node for node in graph_module.graph.nodes}
    ends = [(nodes[site.source], nodes[site.end]) for site in sites]
    joined = [i for i, site in enumerate(sites) if _has_batch(site.resample, *ends[i])]
    # Equal sites may have other open sizes than each other.
    known = [(f"{sites[i].key} {shape_of(ends[i][0].meta['val'])}", *ends[i]) for i in joined]
    taken: Counter[str] = Counter()
    for group in independent_groups(known):
        first = sites[joined[group[0]]]
        key = _key(first.resample, first.kernel, first.bias, len(group), taken[first.key])
        taken[first.key] += 1
        for index in (joined[i] for i in group):
            sites[index] = replace(sites[index], siblings=len(group), key=key)
    return sites


def _has_batch(resample: Resample, source: Node, end: Node) -> bool:
    """Whether the first size of input and output is the batch, so that several inputs can be concatenated."""
    before, after = (shape_of(node.meta["val"]) or () for node in (source, end))
    whole = len(before) == len(after) == resample.dim + 2
    return whole and before[0] == after[0] and not resample.leading


def _site(verdict: Verdict, state: State, claims: Claims | None, any_order: bool) -> Site | Refusal:
    tensors = _input_and_output(verdict, any_order)
    if isinstance(tensors, Refusal):
        return tensors
    source, before, after = tensors
    values = kernel_and_bias(verdict, state)
    if isinstance(values, Refusal):
        return values
    kernel, bias = values
    if {before.dtype, after.dtype} != {kernel.dtype} or not kernel.is_floating_point():
        return refuse(verdict, "dtype", f"input and kernel do not both have the type {kernel.dtype}")
    shared, geometry = verdict.finding.kernel, verdict.finding.site.geometry
    assert shared is not None
    if geometry.transposed:
        kernel = kernel.transpose(0, 1).flip(*range(2, kernel.ndim))
    shapes = sizes_of(before), sizes_of(after)
    rows, columns = kernel.shape[:2]
    resample = resample_of(geometry, shared.groups, rows, columns, shared.block_diagonal, shapes)
    if isinstance(verdict.action, KeepScaled):
        resample = replace(resample, factors=tuple(verdict.action.factors.tolist()))
    around = _surroundings(verdict.call.node, source, resample, claims, [kernel, bias])
    if WITHIN in around.source.meta or WITHIN in around.end.meta:
        return refuse(verdict, "padding", "its two sides are padded differently, and its sizes are open")
    return Site(
        verdict.finding,
        around.resample,
        kernel,
        bias,
        key=_key(around.resample, kernel, bias),
        conv=verdict.call.node.name,
        source=around.source.name,
        end=around.end.name,
        shapes=() if around.resample.static else _of_example(around.source),
        outside=left_outside(around, claims) if claims is not None else (),
    )


def _of_example(node: Node) -> tuple[tuple[int, ...], ...]:
    """The shape of a value in the example with which the graph was captured, if the sizes remember it."""
    shape = node.meta["val"].shape
    if not all(isinstance(size, int) or size.node.has_hint() for size in shape):
        return ()
    return (tuple(size if isinstance(size, int) else size.node.hint for size in shape),)


def _input_and_output(verdict: Verdict, any_order: bool) -> tuple[Node, Tensor, Tensor] | Refusal:
    """The node that the convolution reads, and the captured values of input and output."""
    conv = verdict.call.node
    source = conv.args[0] if conv.args else conv.kwargs.get("input")
    before = source.meta.get("val") if isinstance(source, Node) else None
    after = conv.meta.get("val")
    if not isinstance(source, Node) or not isinstance(before, Tensor) or not isinstance(after, Tensor):
        return refuse(verdict, "shape", "the shape of its input is not known; give example inputs")
    if not any_order and not after.is_contiguous():
        reason = "its output is not laid out in the order of its dimensions, which what follows may rely on"
        return refuse(verdict, "layout", reason)
    return source, before, after


def _surroundings(
    conv: Node,
    source: Node,
    resample: Resample,
    claims: Claims | None,
    constants: Sequence[Tensor | None],
) -> Surroundings:
    """What can be absorbed around a convolution. Its constants must be able to take over the factors."""
    alone = Surroundings(source, conv, resample)
    if claims is None:
        return alone
    around = absorb(conv, source, resample, claims)
    fits = all(value is None or _takes(value, around.resample.scale) for value in constants)
    return around if fits else alone


def _takes(values: Tensor, scale: float) -> bool:
    """Whether ``values`` times ``scale`` stay exact in their type: no overflow, and no bits lost to
    underflow."""
    scaled = (values.double() * scale).abs()
    limits = torch.finfo(values.dtype)
    return bool(((scaled == 0) | ((scaled >= limits.tiny) & (scaled <= limits.max))).all()) or scale == 1.0


def sizes_of(value: Tensor) -> tuple[int | None, ...]:
    """The shape of a captured value, None for an open size."""
    return tuple(size if isinstance(size, int) else None for size in value.shape)


def _key(resample: Resample, kernel: Tensor, bias: Tensor | None, siblings: int = 1, others: int = 0) -> str:
    """What equal sites have in common. Of siblings, ``others`` groups with the same may come before them."""
    said = repr(resample).removesuffix(")") + f", siblings={siblings})"  # as plans have it
    said += f" {resample.factors}" if resample.factors else ""
    said += f" {resample.leading}" if resample.leading else ""
    said += f" group {others}" if others else ""
    digest = hashlib.sha256(f"{said} {kernel.dtype} {tuple(kernel.shape)}".encode())
    for tensor in (kernel, bias):
        digest.update(b"" if tensor is None else tensor.double().contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
