"""What a site computes with its surroundings, in sentences."""

from __future__ import annotations

from collections.abc import Sequence

from torch.fx import GraphModule, Node

from export.runtime.arrays import shape_text
from fx_passes.graph.operators import base_name
from fx_passes.resample.axes import Resample
from fx_passes.resample.site import Site


def around(site: Site, sites: Sequence[Site], graph_module: GraphModule) -> tuple[str, ...]:
    """What is computed together with a convolution, what stays outside, and which sites are related.

    Args:
        sites: all sites of the graph.
        graph_module: the graph.
    """
    lines = [_computes(site.resample)]
    nodes = {node.name: node for node in graph_module.graph.nodes}
    if not site.parts:
        conv = nodes[site.conv]
        for where, steps in (
            ("In front of it", _steps(conv, nodes[site.source])[1:]),
            ("Behind it", _steps(nodes[site.end], conv)[:-1]),
        ):
            if steps:
                lines.append(f"{where}, this is computed with it: {', '.join(dict.fromkeys(steps))}.")
    lines += [f"{text[:1].upper()}{text[1:]}." for text in site.outside]
    for other in sites:
        if set(site.ids) < set(other.ids):
            lines.append(f"It is also a part of `{other.id}`, {len(other.ids)} in a row that can be one.")
    if site.siblings > 1:
        said = "are equal and do not need each other: one call may compute them all"
        lines.append(f"{site.siblings} sites, this one included, {said}.")
    return tuple(lines)


def _computes(resample: Resample) -> str:
    steps = []
    for word, factors in (
        ("up-sampling by", [axis.up for axis in resample.axes]),
        ("a filter of", [axis.taps for axis in resample.axes]),
        ("down-sampling by", [axis.down for axis in resample.axes]),
    ):
        if word == "a filter of" or max(factors) > 1:
            steps.append(f"{word} {shape_text(factors)}" + (" taps" if word == "a filter of" else ""))
    given, made = (
        "x".join("?" if size is None else str(size) for size in shape)
        for shape in (resample.in_shape, resample.out_shape)
    )
    mode = f" The input is padded ({resample.mode})." if resample.mode != "zeros" else ""
    return f"It computes {', '.join(steps)}: {given} -> {made}.{mode}"


def _steps(last: Node, first: Node) -> list[str]:
    """The operators from ``last`` back to the reader of ``first``, in words."""
    found, node = [], last
    while node is not first and node.all_input_nodes:
        found.append(_word(base_name(node)))
        node = node.all_input_nodes[0]
    return found


def _word(operator: str) -> str:
    if "pad" in operator:
        return "a Pad"
    if operator in ("slice", "narrow", "select", "getitem"):
        return "a Slice"
    return "a factor" if operator == "mul" else "a change of the layout"
