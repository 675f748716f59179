"""The convolutions of an ONNX file, and the verdict on each."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch.fx import GraphModule

from export.read_onnx.candidates import Candidate
from export.read_onnx.example import shapes_at
from export.read_onnx.mirror import VALUE, Mirror, mirror
from export.read_onnx.model import OnnxModel
from export.runtime.session import Array
from fx_passes.errors import FxPassesError, LoadError, one_line
from fx_passes.find.find_kernels import judge_graph
from fx_passes.find.verdict import Verdict
from fx_passes.records import Finding, Form, OriginKind, Refusal, WeightOrigin
from fx_passes.resample.lowerable import lowerable_sites
from fx_passes.resample.site import Site

log = logging.getLogger(__name__)

# As in torch: the graph expands one kernel.
EXPANDED = "already one kernel, expanded"


@dataclass(frozen=True)
class Analysis:
    """What is found in a file.

    Args:
        model: the file.
        graph_module: its graph as an FX graph; it is not changed, and cannot be run.
        verdicts: on the candidates of the graph.
        convolutions: the candidates, by the ids of their sites.
        refused: the findings on convolutions that the graph does not show.
    """

    model: OnnxModel
    graph_module: GraphModule
    verdicts: tuple[Verdict, ...]
    convolutions: Mapping[str, Candidate]
    refused: tuple[Finding, ...]

    @property
    def findings(self) -> tuple[Finding, ...]:
        """One for each convolution in groups, or of one channel."""
        return (*(verdict.finding for verdict in self.verdicts), *self.refused)

    def sites(self, workloads: Sequence[Sequence[Array]] = ()) -> tuple[list[Site], dict[str, Refusal]]:
        """The shared convolutions that can be lowered, and a refusal of each of the others by id.

        Args:
            workloads: inputs of the file, each as arrays in their order. Sites with open sizes get the shapes
                that they have for them.

        Raises:
            ExportError: onnxruntime cannot run the file on them.
        """
        sites, refusals = lowerable_sites(self.graph_module, self.verdicts, any_order=True)
        values = self.values()
        wanted = [values[site.source] for site in sites if not site.resample.static]
        seen = [shapes_at(self.model, arrays, wanted) for arrays in workloads] if wanted else []
        if seen:
            known = {name: tuple(dict.fromkeys(shapes[name] for shapes in seen)) for name in wanted}
            sites = [replace(site, shapes=known.get(values[site.source], ())) for site in sites]
        return sites, refusals

    def values(self) -> dict[str, str]:
        """For each node of the FX graph by its name: the ONNX value that it stands for."""
        return {n.name: n.meta[VALUE] for n in self.graph_module.graph.nodes if VALUE in n.meta}


def analyse(
    model: OnnxModel,
    form: Form = "onnx",
    kinds: Mapping[str, OriginKind] | None = None,
    *,
    trusted: bool = True,
    least: Mapping[str, int] | None = None,
) -> Analysis:
    """Find the convolutions of a file, and judge each.

    Args:
        form: the form of the convolutions, for the report.
        kinds: what the weights of a torch model were, by the names of the initializers.
        trusted: whether the shapes that the file states are taken.
        least: the smallest values of open sizes of its inputs, by name.

    Raises:
        LoadError: weights cannot be read, or the nodes of the graph do not fit together.
    """
    seen, judged = _judged(model, trusted, least)
    verdicts = tuple(_in_file(verdict, seen, form, kinds or {}) for verdict in judged)
    return Analysis(model, seen.graph_module, verdicts, seen.convolutions, seen.refused)


def _judged(
    model: OnnxModel, trusted: bool, least: Mapping[str, int] | None
) -> tuple[Mirror, Sequence[Verdict]]:
    """The graph and the verdicts. A file need not be valid, so whatever comes up here names the file."""
    try:
        seen = mirror(model, trusted=trusted, least=least)
        return seen, judge_graph(seen.graph_module, frozen=True)
    except FxPassesError:
        raise
    except Exception as error:
        log.debug("the graph of %s", model.path, exc_info=True)
        said = one_line(error) or type(error).__name__
        raise LoadError(f"{model.path}: its graph cannot be read: {said}") from error


def _in_file(verdict: Verdict, seen: Mirror, form: Form, kinds: Mapping[str, OriginKind]) -> Verdict:
    """The verdict in the names of the file."""
    site = verdict.finding.site
    origin = site.origin
    if (name := seen.convolutions[site.id].weight_name) is not None:
        origin = WeightOrigin(kinds.get(name, "parameter" if form == "onnx" else "buffer"), name)
    site = replace(site, form=form, origin=origin)
    note = EXPANDED if _is_expanded(verdict, seen) else verdict.finding.note
    return replace(verdict, finding=replace(verdict.finding, site=site, note=note))


def _is_expanded(verdict: Verdict, seen: Mirror) -> bool:
    """Whether the file stores one kernel, and its nodes repeat it."""
    kernel, candidate = verdict.finding.kernel, seen.convolutions[verdict.finding.id]
    return kernel is not None and kernel.groups > 1 and candidate.stored == math.prod(kernel.shape)
