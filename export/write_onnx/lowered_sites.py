"""The lowered sites of an ONNX file. They are made once, and any selection of them can be written."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import onnx
import torch
from onnx import ModelProto
from torch import Tensor

from export.read_onnx.model import OnnxModel
from export.write_onnx.library import open_dims
from export.write_onnx.parts import Part, parts_of
from export.write_onnx.surgery import Replacement, replace_parts
from fx_passes.lowerings import build
from fx_passes.plan import Plan
from fx_passes.records import Proposal
from fx_passes.resample.site import Site


@dataclass(frozen=True)
class Place:
    """Where a call of a lowered module is in a file.

    Args:
        key: the key of the sites that the module computes.
        source, end: the names of the value that its nodes read, and of the value that they compute.
        nodes: the names of the nodes.
        example: zeros in the shape of the source.
    """

    key: str
    source: str
    end: str
    nodes: frozenset[str]
    example: Tensor


@dataclass(frozen=True)
class LoweredCall:
    """One call of a lowered module.

    Args:
        key, ids: the sites that it computes.
        findings: the ids of all findings in them.
        replacement: how it stands in the file.
        example: zeros in the shape of what it reads.
    """

    key: str
    ids: tuple[str, ...]
    findings: tuple[str, ...]
    replacement: Replacement
    example: Tensor


@dataclass(frozen=True)
class LoweredSites:
    """What a plan makes of the sites of a file.

    Args:
        model: the file.
        calls: the calls of lowered modules.
    """

    model: OnnxModel
    calls: tuple[LoweredCall, ...]

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of the sites that are lowered."""
        return tuple(dict.fromkeys(call.key for call in self.calls))

    def applied(self, without: Collection[str] = ()) -> tuple[ModelProto, tuple[Place, ...]]:
        """A new message with the sites lowered, except those of some keys; and where they are in it."""
        return self.only([call for call in self.calls if call.key not in without])

    def only(self, calls: Sequence[LoweredCall]) -> tuple[ModelProto, tuple[Place, ...]]:
        """The same, with some of the calls."""
        proto = onnx.load(self.model.path, load_external_data=False)
        written = replace_parts(proto, [call.replacement for call in calls])
        places = tuple(
            Place(call.key, where.source, where.end, where.nodes, call.example)
            for call, where in zip(calls, written, strict=True)
        )
        return proto, places


def lower_sites(
    model: OnnxModel, sites: Sequence[Site], values: Mapping[str, str], plan: Plan
) -> LoweredSites:
    """Make the lowered sites of ``plan``.

    Args:
        model: the file.
        sites: its sites. Those with open sizes have their ``shapes``.
        values: for each node of their graph, the name of its value in the file.
        plan: the decisions.

    Raises:
        ExportError: a lowering cannot be exported.
    """
    chosen = [(site, p) for site in sites if (p := plan.choices[site.id].proposal) is not None]
    groups: dict[tuple[str, Proposal], list[Site]] = {}
    for site, proposal in chosen:
        groups.setdefault((site.key, proposal), []).append(site)
    modules, examples, dynamic = [], [], []
    for (_, proposal), same in groups.items():
        site = same[0]
        modules.append(build(proposal, site.resample, site.kernel, site.bias, site.siblings))
        examples.append(_example(site, proposal))
        dynamic.append(open_dims(site.resample))
    parts = parts_of(modules, examples, model.opset, dynamic)
    calls = [
        _call(together, part, values, example)
        for ((_, proposal), same), part, example in zip(groups.items(), parts, examples, strict=True)
        for together in ([same] if proposal.merged else [[site] for site in same])
    ]
    place = {site.id: number for number, site in enumerate(sites)}
    calls.sort(key=lambda call: place[call.ids[0]])
    return LoweredSites(model, tuple(calls))


def _call(together: Sequence[Site], part: Part, values: Mapping[str, str], example: Tensor) -> LoweredCall:
    """One call of a part, which computes these sites."""
    sources = tuple(values[site.source] for site in together)
    ends = tuple(values[site.end] for site in together)
    ids = tuple(site.id for site in together)
    findings = tuple(name for site in together for name in site.ids)
    return LoweredCall(together[0].key, ids, findings, Replacement(ids[0], part, sources, ends), example)


def _example(site: Site, proposal: Proposal) -> Tensor:
    sizes = site.shapes[0] if site.shapes else tuple(size or 0 for size in site.resample.in_shape)
    if proposal.merged:
        sizes = (sizes[0] * site.siblings, *sizes[1:])
    return torch.zeros(tuple(sizes), dtype=site.kernel.dtype)
