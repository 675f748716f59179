"""The second stage: find the kernels, decide, lower, share, and export the result."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import nn
from torch.fx import GraphModule

from export.job.source import Source
from export.report.result import count_shared
from export.runtime.files import output_names
from export.stages import Stages
from export.tune.candidates import in_frame, original_of
from export.tune.fastest import Subject
from export.tune.make_plan import make_plan
from export.tune.options import Options
from export.tune.trial import Trial, make_trial
from export.verify.site_check import Replaced
from export.write_onnx.batch_norm import REASON, before_batch_norm, folded_sites
from export.write_onnx.exporter import to_onnx
from export.write_onnx.library import Place
from fx_passes.capture.routes import Capture
from fx_passes.find.find_kernels import judge_graph
from fx_passes.graph.clone import clone_module
from fx_passes.lower import lower_in_place
from fx_passes.plan import Plan
from fx_passes.records import Finding
from fx_passes.resample.site import Site, lowerable_sites
from fx_passes.share.share_kernels import share_in_place


@dataclass(frozen=True)
class Rewritten:
    """The rewritten graph and its file.

    Args:
        path: the file.
        captured: the graph after the rewrite, and the route by which it was captured.
        findings: the finding of each candidate.
        plan: the decisions.
        reasons: by id, why a shared site is kept as it was.
        folded: ids of shared sites whose weight is stored whole.
        places: where the lowered sites are in the file.
        replaced: by key, what lowered sites computed before.
    """

    path: Path
    captured: Capture
    findings: tuple[Finding, ...]
    plan: Plan
    reasons: Mapping[str, str]
    folded: frozenset[str]
    places: tuple[Place, ...]
    replaced: Mapping[str, Replaced]

    @property
    def lowered(self) -> tuple[str, ...]:
        """Ids of the sites that were lowered."""
        return tuple(name for name, choice in self.plan.choices.items() if choice.proposal is not None)


def rewrite(source: Source, options: Options, stages: Stages) -> Rewritten:
    """Rewrite a new capture of the original as ``options`` say, and export it.

    The file of an earlier rewrite of the same source is replaced.

    Raises:
        CaptureError, ExportError: the model cannot be captured, or its rewritten graph cannot be exported.
        UsageError: the given plan does not fit.
    """
    with stages.stage("capturing the graph"):
        captured = source.capture()
    graph_module = captured.graph_module
    with stages.stage("finding and sharing kernels"):
        verdicts = judge_graph(graph_module, frozen=True)
        sites, refusals = lowerable_sites(
            graph_module,
            verdicts,
            stays=lambda conv: REASON if before_batch_norm(conv, graph_module) else None,
            any_order=True,
        )
    findings = tuple(verdict.finding for verdict in verdicts)
    plan = _decide(source, graph_module, sites, options, stages)
    replaced = _replaced(graph_module, sites, plan)
    lowered = lower_in_place(graph_module, sites, plan)
    # onnxruntime is to see kernels computed by the same arithmetic in both files: constants are not
    # folded by torch, whose exp() may differ from the exporter's in the last bit.
    share_in_place(graph_module, fold_constants=False)
    folded = folded_sites(graph_module, findings)
    changed = lowered or count_shared(findings) > len(folded)
    path, places = _write(source, graph_module if changed else None, stages)
    reasons = {name: refusal.reason for name, refusal in refusals.items()}
    reasons = {} if options.chosen_by == "expand" else reasons
    return Rewritten(path, captured, findings, plan, reasons, folded, places, replaced)


def _decide(
    source: Source, graph_module: GraphModule, sites: Sequence[Site], options: Options, stages: Stages
) -> Plan:
    folder = source.folder / "trials"
    folder.mkdir()
    trial_of = partial(_trial, source, graph_module, sites, folder)
    plan = make_plan(Subject(graph_module, sites, source.baseline, source.arrays, trial_of), options, stages)
    shutil.rmtree(folder)
    return plan


def _trial(
    source: Source, graph_module: GraphModule, sites: Sequence[Site], folder: Path, plan: Plan
) -> Trial:
    """A copy of the graph with ``plan`` carried out, which can be varied and timed."""
    lowered = clone_module(graph_module, compiled=False)
    lower_in_place(lowered, sites, plan)
    share_in_place(lowered, fold_constants=False)
    return make_trial(lowered, graph_module, sites, source.inputs, source.dynamic_shapes, folder)


def _replaced(graph_module: GraphModule, sites: Sequence[Site], plan: Plan) -> dict[str, Replaced]:
    """What the sites compute that ``plan`` lowers, taken out of the graph before they are lowered."""
    same: dict[str, list[Site]] = {}
    for site in sites:
        if plan.choices[site.id].proposal is not None:
            same.setdefault(site.key, []).append(site)
    return {key: _replaced_by_one(graph_module, of_key, plan) for key, of_key in same.items()}


def _replaced_by_one(graph_module: GraphModule, same: Sequence[Site], plan: Plan) -> Replaced:
    first, proposal = same[0], plan.choices[same[0].id].proposal
    assert proposal is not None
    original: nn.Module = original_of(graph_module, first)
    framed = in_frame(first, original, merged=False) if proposal.merged else original
    return Replaced(framed, tuple(site.id for site in same))


def _write(
    source: Source, graph_module: GraphModule | None, stages: Stages
) -> tuple[Path, tuple[Place, ...]]:
    """Export the rewritten graph. If there is none, copy the original file."""
    path = source.folder / "optimized" / source.baseline.name
    shutil.rmtree(path.parent, ignore_errors=True)
    if graph_module is None:
        shutil.copytree(source.baseline.parent, path.parent)
        return path, ()
    places: list[Place] = []
    with stages.stage("exporting the optimized model"):
        path.parent.mkdir()
        to_onnx(
            graph_module,
            source.inputs,
            path,
            dynamic_shapes=source.dynamic_shapes,
            output_names=output_names(source.baseline),
            places=places,
        )
    return path, tuple(places)
