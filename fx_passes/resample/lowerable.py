"""The shared convolutions of a graph that can be lowered, and a refusal for each of the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor
from torch.fx import GraphModule, Node

from fx_passes.find.find_kernels import judge_graph
from fx_passes.find.verdict import KeepScaled, Verdict
from fx_passes.graph.tensors import State
from fx_passes.graph.writes import writes_at_run_time
from fx_passes.records import Refusal
from fx_passes.resample.absorb import WITHIN, Claims, Surroundings, absorb
from fx_passes.resample.axes import Resample, resample_of
from fx_passes.resample.compose import with_whole_rows
from fx_passes.resample.outside import left_outside
from fx_passes.resample.siblings import with_siblings
from fx_passes.resample.site import Site, key_of, takes
from fx_passes.resample.values import kernel_and_bias, refuse


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
    if movable:
        nodes = {node.name: node for node in graph_module.graph.nodes}
        sites = with_siblings(with_whole_rows(sites, nodes), nodes)
        by_id = {site.id: site for site in sites}
        sites = [replace(site, parts=tuple(by_id[part.id] for part in site.parts)) for site in sites]
    return sites, refusals


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
        key=key_of(around.resample, kernel, bias),
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
    fits = all(value is None or takes(value, around.resample.scale) for value in constants)
    return around if fits else alone


def sizes_of(value: Tensor) -> tuple[int | None, ...]:
    """The shape of a captured value, None for an open size."""
    return tuple(size if isinstance(size, int) else None for size in value.shape)
