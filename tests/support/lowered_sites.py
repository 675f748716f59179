"""Kernels, a convolution, and a function that lowers each site of a model by a named lowering."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import ExportedProgram

from fx_passes import lower
from fx_passes.capture.routes import capture
from fx_passes.lowerings import propose
from fx_passes.plan import Choice, Plan
from fx_passes.records import Proposal
from fx_passes.resample.lowerable import lowerable_sites
from fx_passes.resample.site import Site


def repeated(kernel: Tensor, groups: int = 3) -> Tensor:
    """The same kernel for each group."""
    return torch.cat([kernel] * groups)


def product(height: int, width: int, rank: int = 1) -> Tensor:
    """A kernel of the given rank."""
    terms = [torch.randn(1, 1, height, 1) * torch.randn(1, 1, 1, width) for _ in range(rank)]
    return torch.stack(terms).sum(0)


def same(x: Tensor, weight: Tensor) -> Tensor:
    """A convolution in three groups. Its output is as large as its input."""
    conv = F.conv1d if x.ndim == 3 else F.conv2d
    return conv(x, weight, padding=(weight.shape[-1] - 1) // 2, groups=3)


def lowered(
    model: nn.Module | ExportedProgram, inputs: tuple[Any, ...], names: Sequence[str]
) -> tuple[torch.fx.GraphModule, list[Site]]:
    """Lower the sites of ``model``, in order, each by the lowering in ``names``.

    Return the lowered graph and its sites.
    """
    sites, _ = lowerable_sites(capture(model, inputs).graph_module)
    assert len(sites) == len(names)
    plan = Plan({s.id: Choice(s.key, proposal_of(s, name)) for s, name in zip(sites, names, strict=True)})
    return lower(model, plan, inputs), sites


def proposal_of(site: Site, name: str) -> Proposal:
    """The proposal of the lowering with this name. ``sibling_merge`` merges siblings in phases.

    If the lowering has phases, there are 16 of them and their rows are split.
    """
    wanted = {"phases": 16, "interleave": "split"}
    found, _ = propose(site.resample, site.kernel, siblings=site.siblings)
    merged = name == "sibling_merge"
    proposals = [p for p in found if p.merged == merged and p.lowering == ("polyphase" if merged else name)]
    return next(p for p in proposals if all(wanted[key] == value for key, value in p.params))
