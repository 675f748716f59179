"""The ways to compute a site, as small ONNX models: the original, and each proposal.

The candidates of all sites are exported together, as one library (``write_onnx/library.py``). Otherwise
tuning would spend most of its time in torch's exporter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import onnx_ir as ir
import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from export.runtime.timed_key import timed_at
from export.write_onnx.exporter import export_library
from export.write_onnx.library import open_dims
from fx_passes.lowerings import build, propose
from fx_passes.records import Exactness, Proposal
from fx_passes.resample.site import Site
from fx_passes.tune.original import original_of, shapes_of


@dataclass(frozen=True)
class Candidates:
    """The ways to compute the sites of one key. Entry 0 is the original with its surroundings.

    Args:
        site: one of the equal sites.
        count: how many equal sites there are.
        proposals: the other entries.
        first: the index of entry 0 in the library.
        shape: of the input of each entry, when it is timed. Sites with open sizes have candidates for each
            shape.
    """

    site: Site
    count: int
    proposals: tuple[Proposal, ...]
    first: int
    shape: tuple[int, ...]

    @property
    def key(self) -> str:
        """Under which the times are kept: the key of the site, and of open sizes the shape."""
        return self.site.key if self.site.resample.static else timed_at(self.site.key, self.shape)

    @property
    def names(self) -> tuple[str, ...]:
        return ("expand", *(proposal.name for proposal in self.proposals))


def make_candidates(
    graph_module: GraphModule, sites: Sequence[Site], exactness: Exactness
) -> tuple[list[Candidates], ir.Model | None]:
    """The candidates of each distinct site that has a proposal, and the library of them all.

    Sites with open sizes are left out if no shape is known: which candidate is fastest depends on it.
    """
    found: list[Candidates] = []
    modules: list[nn.Module] = []
    inputs: list[Tensor] = []
    open_sizes: list[dict[int, Any]] = []
    for key in dict.fromkeys(site.key for site in sites):
        same = [site for site in sites if site.key == key]
        site = same[0]
        shapes = shapes_of(same)
        proposals, _ = propose(site.resample, site.kernel, exactness, site.siblings)
        if not proposals or not shapes:
            continue
        ways = tuple(proposals)
        found += [Candidates(site, len(same), ways, len(modules), shape) for shape in shapes]
        computed: list[nn.Module] = [original_of(graph_module, site)]
        computed += [build(p, site.resample, site.kernel, site.bias, site.siblings) for p in proposals]
        merged = [False, *(proposal.merged for proposal in proposals)]
        framed = [in_frame(site, one, merged=all_) for one, all_ in zip(computed, merged, strict=True)]
        read = _is_read(graph_module, site)
        modules += [_Read(module) if read else module for module in framed]
        inputs += [torch.zeros(shapes[0], dtype=site.kernel.dtype)] * len(computed)
        open_sizes += [open_dims(site.resample) for _ in computed]
    if not found:
        return [], None
    return found, export_library(modules, inputs, open_sizes)


def in_frame(site: Site, module: nn.Module, *, merged: bool) -> nn.Module:
    """``module`` on as many inputs as there are siblings. They are multiples of one, and joined behind it.

    Args:
        site: one of the siblings.
        module: what is put into the frame.
        merged: one call of ``module`` computes all of them.
    """
    return module if site.siblings == 1 else _Frame(module, site.siblings, merged)


def _is_read(graph_module: GraphModule, site: Site) -> bool:
    """Whether a candidate needs a node that reads its result, because the site has one in its graph.

    onnxruntime copies the result of a Reshape that is an output of the graph. If another node reads it,
    nothing is copied.
    """
    end = next(node for node in graph_module.graph.nodes if node.name == site.end)
    return site.siblings == 1 and all(user.op != "output" for user in end.users)


class _Read(nn.Module):
    """A module, and a node that reads its result."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.module(x)).neg()


class _Frame(nn.Module):
    """Computes siblings one by one, or merged. The frame is the same, and costs both the same."""

    def __init__(self, module: nn.Module, count: int, merged: bool) -> None:
        super().__init__()
        self.module, self.count, self.merged = module, count, merged

    def forward(self, x: Tensor) -> Tensor:
        parts: Sequence[Tensor] = [x * (number + 2.0) for number in range(self.count)]
        if self.merged:
            parts = self.module(torch.cat(list(parts))).split([x.shape[0]] * self.count)
        else:
            parts = [self.module(part) for part in parts]
        return torch.cat([part * 1.0 for part in parts])
