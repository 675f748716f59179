"""Gathers what a report for people shows besides the result, while the files of the stages exist."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx
from onnx import GraphProto
from torch import Tensor

from export.job.measure import Measured
from export.job.source import Source
from export.job.verify import Verified
from export.read_onnx.nodes_between import Producers
from export.report.details import Details, Operators, SiteDetail
from export.runtime.files import bytes_of
from export.runtime.profile import operator_times
from export.runtime.session import Array
from export.stages import Stages
from export.tune.options import Options
from fx_passes.errors import ExportError, one_line
from fx_passes.find.verdict import Verdict


def gathered(source: Source, measured: Measured, options: Options, stages: Stages) -> Details:
    """Kernels, nodes, times by operator, and bytes by initializer."""
    rewritten = measured.verified.rewritten
    before, after = _graph(source.baseline), _graph(rewritten.path)
    return Details(
        sites=dict(_sites(source, measured.verified, before, after)),
        operators=_operators(source, measured, options, stages),
        before=_bytes(before),
        after=_bytes(after),
    )


def _graph(file: Path) -> GraphProto:
    return onnx.load(file, load_external_data=False).graph


def _sites(
    source: Source, verified: Verified, before: GraphProto, after: GraphProto
) -> Iterator[tuple[str, SiteDetail]]:
    """The detail of each finding, by id."""
    rewritten, values = verified.rewritten, source.found.values()
    old, new = Producers(before), Producers(after)
    sites = {site.id: site for site in rewritten.sites}
    lowered = {place.key: new.between(place.source, place.end) for place in rewritten.places}
    for verdict in source.found.verdicts:
        name = verdict.finding.id
        site = sites.get(rewritten.whole.get(name, name))
        kernel = _array(site.kernel) if site is not None else _kernel_of(verdict)
        if site is not None and name in rewritten.lowered:
            nodes = old.between(values[site.source], values[site.end])
            error = verified.errors.get(site.key)
            yield name, SiteDetail(kernel, nodes, lowered.get(site.key, ()), error)
        elif name in rewritten.once:
            node = source.found.convolutions[name].node
            ends = node.input[0], node.output[0]
            yield name, SiteDetail(kernel, old.between(*ends), new.between(*ends))
        else:
            yield name, SiteDetail(kernel)


def _array(kernel: Tensor) -> Array:
    return kernel.detach().double().cpu().numpy()


def _kernel_of(verdict: Verdict) -> Array | None:
    """The one kernel of a site that is not lowered, in the order of a correlation."""
    kernel = getattr(verdict.action, "kernel", None)
    if not isinstance(kernel, Tensor):
        return None
    if verdict.finding.site.geometry.transposed:
        kernel = kernel.transpose(0, 1).flip(tuple(range(2, kernel.dim())))
    return _array(kernel)


def _operators(source: Source, measured: Measured, options: Options, stages: Stages) -> Operators:
    """The times by operator. A profile that fails is no reason to lose the result."""
    target, rewritten = options.target, measured.verified.rewritten
    if options.seconds <= 0:
        return Operators(why_not="nothing was measured, as asked for (0 seconds)")
    if rewritten.unchanged:
        return Operators(why_not="both files are the same")
    if target.runtime != "onnxruntime":
        return Operators(why_not=f"it is onnxruntime's profile, and the file is for {target}")
    files = (source.baseline, rewritten.path)
    with stages.stage("timing each operator"):
        try:
            before, after = (
                operator_times(file, source.arrays, provider=target.provider, threads=target.threads)
                for file in files
            )
        except ExportError as error:
            return Operators(why_not=one_line(error, 200))
    return Operators(before, after)


def _bytes(graph: GraphProto) -> dict[str, int]:
    """The bytes of each initializer, the largest first."""
    sizes = {tensor.name: bytes_of(tensor) for tensor in graph.initializer}
    return dict(sorted(sizes.items(), key=lambda item: -item[1]))
