"""The second stage: find the kernels, decide, lower, store each kernel once, and write the result."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from export.job.source import Source
from export.read_onnx.sites import Analysis
from export.stages import Stages
from export.tune.make_plan import make_plan
from export.tune.options import Options
from export.tune.subject import Subject
from export.verify.site_check import Replaced
from export.write_onnx.kernels_once import repeated_in, store_once
from export.write_onnx.lowered_sites import LoweredSites, Place, lower_sites
from export.write_onnx.stamp import stamp
from export.write_onnx.written_file import copy_weights, write_file
from fx_passes.plan import Choice, Plan
from fx_passes.records import Finding
from fx_passes.resample.site import Site
from fx_passes.tune.original import original_of
from fx_passes.tune.whole_graph import Trial


@dataclass(frozen=True)
class Rewritten:
    """The rewritten file.

    Args:
        path: the file. If nothing was rewritten it is a copy of the original, but for a stamp.
        findings: the finding on each candidate.
        plan: the decisions.
        reasons: by id, why a shared site is kept as it was.
        once: ids of the shared sites whose kernel is stored once.
        places: where the lowered sites are in the file.
        replaced: by key, what lowered sites computed before.
        parts: the lowered sites, which can be written in any selection.
        outside: by the id of a lowered site, why a Pad or a Slice beside it stays.
        whole: of a site that is computed as one with others, the id of them all in the plan.
        sites: the sites that can be lowered.
    """

    path: Path
    findings: tuple[Finding, ...]
    plan: Plan
    reasons: Mapping[str, str]
    once: frozenset[str]
    places: tuple[Place, ...]
    replaced: Mapping[str, Replaced]
    parts: LoweredSites
    outside: Mapping[str, Sequence[str]] = field(default_factory=dict)
    whole: Mapping[str, str] = field(default_factory=dict)
    sites: tuple[Site, ...] = ()

    @property
    def lowered(self) -> tuple[str, ...]:
        """Ids of the sites that were lowered, by themselves or as one with others."""
        chosen = {name for name, choice in self.plan.choices.items() if choice.proposal is not None}
        return tuple(name for name in self.plan.choices if self.whole.get(name, name) in chosen)

    @property
    def unchanged(self) -> bool:
        """Whether the graph is that of the original."""
        return not self.lowered and not self.once


def rewrite(source: Source, options: Options, stages: Stages, *, keep: bool = False) -> Rewritten:
    """Rewrite the file of the original as ``options`` say.

    The file of an earlier rewrite of the same source is replaced.

    Args:
        keep: lower no site, whatever ``options`` say.

    Raises:
        LoadError: weights that lie in another file cannot be read.
        ExportError: a lowering cannot be exported.
        UsageError: the given plan does not fit.
    """
    found = source.found
    with stages.stage("finding kernels"):
        sites, refusals = found.sites(() if keep else source.workloads)
    values = found.values()
    if keep:
        plan = Plan({site.id: Choice(site.key, None) for site in sites})
    else:
        plan = _decide(source, found, sites, values, options, stages)
    replaced = _replaced(found, sites, plan)
    with stages.stage("writing the optimized model"):
        parts = lower_sites(source.model, sites, values, plan)
        path, places, once = _write(source, found, parts, options, plan)
    reasons = {name: refusal.reason for name, refusal in refusals.items()}
    reasons = {} if options.chosen_by == "expand" else reasons
    lowered = [site for site in sites if plan.choices[site.id].proposal is not None]
    outside = {site.id: site.outside for site in lowered}
    whole = {name: site.id for site in lowered if site.parts for name in site.ids}
    return Rewritten(
        path, found.findings, plan, reasons, once, places, replaced, parts, outside, whole, tuple(sites)
    )


def _decide(
    source: Source,
    found: Analysis,
    sites: Sequence[Site],
    values: Mapping[str, str],
    options: Options,
    stages: Stages,
) -> Plan:
    folder = source.folder / "trials"
    folder.mkdir()

    def trial_of(plan: Plan) -> Trial:
        parts = lower_sites(source.model, sites, values, plan)
        copy_weights(source.model, folder)

        def write(without: frozenset[str]) -> Path:
            path = folder / f"{len(list(folder.glob('*.onnx')))}.onnx"
            proto, _ = parts.applied(without)
            path.write_bytes(proto.SerializeToString())
            return path

        return Trial(parts.keys, write)

    subject = Subject(found.graph_module, sites, source.baseline, source.workloads, trial_of)
    plan = make_plan(subject, options, stages)
    shutil.rmtree(folder)
    return plan


def _replaced(found: Analysis, sites: Sequence[Site], plan: Plan) -> dict[str, Replaced]:
    """What the sites compute that ``plan`` lowers."""
    same: dict[str, list[Site]] = {}
    for site in sites:
        if plan.choices[site.id].proposal is not None:
            same.setdefault(site.key, []).append(site)
    return {key: _replaced_by_one(found, of_key, plan) for key, of_key in same.items()}


def _replaced_by_one(found: Analysis, same: Sequence[Site], plan: Plan) -> Replaced:
    first, proposal = same[0], plan.choices[same[0].id].proposal
    assert proposal is not None
    original: nn.Module = original_of(found.graph_module, first)
    replaced = _OneByOne(original, first.siblings) if proposal.merged else original
    return Replaced(replaced, tuple(site.id for site in same))


class _OneByOne(nn.Module):
    """A module on ``count`` inputs whose batches stand one after the other."""

    def __init__(self, module: nn.Module, count: int) -> None:
        super().__init__()
        self.module, self.count = module, count

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.module(part) for part in x.chunk(self.count)])


def _write(
    source: Source, found: Analysis, parts: LoweredSites, options: Options, plan: Plan
) -> tuple[Path, tuple[Place, ...], frozenset[str]]:
    """Write the file; a copy of the original if nothing changes. A given file keeps its notes, unless the
    caller asks for a stamp."""
    path = source.folder / "optimized" / source.baseline.name
    shutil.rmtree(path.parent, ignore_errors=True)
    path.parent.mkdir()
    proto, places = parts.applied()
    repeated = repeated_in(found, {name for call in parts.calls for name in call.findings})
    once = store_once(proto, repeated, always=source.exported or options.lowering == "expand")
    changed = bool(parts.calls or once)
    if options.stamp or (changed and source.exported):
        stamp(proto, _done(found, parts, plan, once))
    if changed or options.stamp:
        write_file(proto, path, source.model)
    else:
        shutil.copyfile(source.baseline, path)
        copy_weights(source.model, path.parent)
    return path, places, frozenset(once)


def _done(found: Analysis, parts: LoweredSites, plan: Plan, once: Collection[str]) -> list[dict[str, str]]:
    """What was done to each rewritten site, for the stamp."""
    forms = dict.fromkeys(once, ("expand", "bitwise"))
    for call in parts.calls:
        proposal = plan.choices[call.ids[0]].proposal
        assert proposal is not None
        forms |= dict.fromkeys(call.findings, (proposal.name, proposal.exactness))
    ids = [finding.id for finding in found.findings if finding.id in forms]
    return [{"id": name, "lowering": forms[name][0], "exactness": forms[name][1]} for name in ids]
