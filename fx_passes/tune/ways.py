"""The ways to compute a site in torch, each as a small graph: the original, and each proposal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule

from fx_passes.lowerings import build, propose
from fx_passes.records import Exactness, Proposal
from fx_passes.resample.site import Site
from fx_passes.tune.original import original_of, shapes_of

# The name of the original.
ORIGINAL = "expand"


@dataclass(frozen=True)
class Ways:
    """The ways to compute the sites of one key. Each takes the input of every sibling, and gives as many
    outputs: so a merged proposal is compared with all the convolutions that it replaces.

    Args:
        site: one of the equal sites.
        count: how many equal sites there are.
        proposals: the ways besides the original.
        graphs: all ways by name.
        shapes: of each input, when the ways are timed.
    """

    site: Site
    count: int
    proposals: Sequence[Proposal]
    graphs: Mapping[str, GraphModule]
    shapes: Sequence[tuple[int, ...]]

    def inputs(self, shape: tuple[int, ...]) -> list[Tensor]:
        """Random inputs of this shape, the same each time, where the kernel is."""
        kernel = self.site.kernel
        generator = torch.Generator().manual_seed(0)
        draws = [torch.randn(shape, generator=generator) for _ in range(self.site.siblings)]
        return [x.to(kernel.device, kernel.dtype) for x in draws]


def ways_of(graph_module: GraphModule, sites: Sequence[Site], exactness: Exactness) -> list[Ways]:
    """The ways to compute each distinct site that has a proposal.

    Sites with open sizes are left out if no shape is known: which way is fastest depends on it.
    """
    found = []
    for key in dict.fromkeys(site.key for site in sites):
        same = [site for site in sites if site.key == key]
        site, shapes = same[0], shapes_of(same)
        proposals, _ = propose(site.resample, site.kernel, exactness, site.siblings)
        if not proposals or not shapes:
            continue
        graphs = {ORIGINAL: original_of(graph_module, site, site.siblings)}
        graphs |= {proposal.name: _lowered(site, proposal) for proposal in proposals}
        found.append(Ways(site, len(same), proposals, graphs, shapes))
    return found


def _lowered(site: Site, proposal: Proposal) -> GraphModule:
    """As in the lowered graph: a call for each input, or one for all of them, joined along the batch."""
    module = build(proposal, site.resample, site.kernel, site.bias, site.siblings)
    graph, count = Graph(), site.siblings
    given = [graph.placeholder(f"x_{number}") for number in range(count)]
    if proposal.merged:
        together = graph.call_function(torch.ops.aten.cat.default, (given, 0))
        called = graph.call_module("lowered", (together,))
        graph.output(graph.call_function(torch.ops.aten.chunk.default, (called, count, 0)))
    else:
        values = [graph.call_module("lowered", (x,)) for x in given]
        graph.output(values[0] if count == 1 else values)
    return GraphModule({"lowered": module}, graph)
