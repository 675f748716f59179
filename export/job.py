"""One optimisation, stage by stage: export, rewrite, verify, measure."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn
from torch.export import ExportedProgram
from torch.fx import GraphModule

from export.blame import blame_site
from export.decide import Decide
from export.equivalence import Equivalence, check_equivalence
from export.measure import Timing, measure_speed
from export.onnx_export import stock_export, to_onnx
from export.onnx_file import output_names
from export.reference import float64_reference, tensor_arrays, with_arrays
from export.report import count_shared
from fx_passes.capture import Capture
from fx_passes.errors import NotEquivalentError
from fx_passes.find import judge
from fx_passes.inline import capture_for_inference
from fx_passes.lower import lower_in_place
from fx_passes.lowerable import before_batch_norm, lowerable_sites
from fx_passes.open_sizes import open_sizes
from fx_passes.records import Finding
from fx_passes.share import share_in_place

log = logging.getLogger(__name__)
Progress = Callable[[str], None]


class Job:
    """The stages of one optimisation, in the order in which they are called, and what they hand on."""

    def __init__(
        self,
        model: nn.Module | ExportedProgram,
        inputs: tuple[Any, ...],
        dynamic_shapes: Any,
        folder: Path,
        name: str,
        progress: Progress,
    ) -> None:
        self.model, self.inputs, self.progress = model, inputs, progress
        self.sizes = open_sizes(model, inputs, dynamic_shapes)
        self.dynamic_shapes = self.sizes.dynamic_shapes if self.sizes else None
        # Both have the name of the output, which a file with external data holds within.
        self.baseline, self.optimized = (folder / kind / name for kind in ("baseline", "optimized"))
        self.baseline.parent.mkdir()

    def export_baseline(self) -> None:
        """The original, by the stock exporter."""
        self.progress("exporting the original")
        stock_export(self.model, self.inputs, self.baseline, dynamic_shapes=self.dynamic_shapes)

    def rewrite(self, how: Decide) -> None:
        """Find, decide, lower, share, export."""
        self.progress("capturing the graph")
        self.captured = self.capture()
        graph_module = self.captured.graph_module
        self.progress("finding and sharing kernels")
        verdicts = judge(graph_module)
        self.findings = [verdict.finding for verdict in verdicts]
        sites, reasons = lowerable_sites(graph_module, verdicts)
        self.reasons = reasons if how.plan is not None or how.lowering != "expand" else {}
        self.plan = how.decide(graph_module, sites, self.baseline, self.inputs, self.dynamic_shapes)
        lowered = lower_in_place(graph_module, sites, self.plan)
        # onnxruntime is to see kernels computed by the same arithmetic in both files: constants are not
        # folded by torch, whose exp() may differ from the exporter's in the last bit.
        share_in_place(graph_module, fold_constants=False)
        self.folded = _before_batch_norm(graph_module, self.findings)
        if lowered or count_shared(self.findings):
            self.progress("exporting the optimised model")
            self.optimized.parent.mkdir(exist_ok=True)
            to_onnx(
                graph_module,
                self.inputs,
                self.optimized,
                dynamic_shapes=self.dynamic_shapes,
                output_names=output_names(self.baseline),
            )
        else:
            shutil.copytree(self.baseline.parent, self.optimized.parent, dirs_exist_ok=True)

    def capture(self) -> Capture:
        """A capture for inference that may be rewritten in place: never the model itself."""
        return capture_for_inference(self.model, self.inputs, dynamic_shapes=self.dynamic_shapes)

    def verify(self) -> Equivalence:
        """Compare both files in onnxruntime.

        Raises:
            NotEquivalentError: they differ; with the site that causes it.
        """
        used = self.plan.exactness
        equivalence = check_equivalence(
            self.baseline,
            self.optimized,
            example_inputs=tensor_arrays(self.inputs),
            reference=float64_reference(self.model, self.inputs),
            require_bitwise=used == "bitwise",
            non_finite=used != "finite",
            finite_only=used == "finite",
            sizes=self.sizes,
            progress=lambda case: self.progress(f"checking equivalence: {case}"),
        )
        if equivalence.passed:
            return equivalence
        assert equivalence.mismatch is not None and equivalence.failing_inputs is not None
        failing = with_arrays(self.inputs, equivalence.failing_inputs)
        rewritten = self.captured.graph_module
        site = blame_site(
            self.capture().graph_module, rewritten, self.findings, failing, bitwise=used == "bitwise"
        )
        cause = f"caused by site {site}" if site else "no site differs in PyTorch: the export causes it"
        raise NotEquivalentError(f"not equivalent: {equivalence.mismatch}; {cause}", site)

    def verify_or_put_back(self, how: Decide) -> Equivalence:
        """Verify; where only rounding makes the files differ, keep every convolution and verify that.

        A model may decide by thresholds, and then no rounding but its own will do. A site that is wrong in
        exact arithmetic, and a plan that was asked for, are errors all the same.
        """
        try:
            return self.verify()
        except NotEquivalentError as error:
            if error.site is not None or how.plan is not None or self.plan.exactness == "bitwise":
                raise
            said = str(error).removeprefix("not equivalent: ").partition("; no site")[0]
            log.warning("every convolution is kept: %s", said)
        lowered = [name for name, choice in self.plan.choices.items() if choice.proposal is not None]
        self.progress("keeping every convolution: the model is sensitive to rounding")
        self.rewrite(replace(how, lowering="expand"))
        reason = f"kept, as the model is sensitive to rounding: {said}"
        self.reasons.update(dict.fromkeys(lowered, reason))
        return self.verify()

    def measure(self, threads: int, seconds: float) -> Timing | None:
        """Time both files against each other."""
        if seconds <= 0:
            return None
        self.progress("measuring speed")
        arrays = tensor_arrays(self.inputs)
        return measure_speed(self.baseline, self.optimized, arrays, threads=threads, seconds=seconds)


def _before_batch_norm(graph_module: GraphModule, findings: Sequence[Finding]) -> frozenset[str]:
    """The shared sites whose only user is a batch norm in evaluation mode, which the exporter folds."""
    nodes = {node.name: node for node in graph_module.graph.nodes}
    return frozenset(
        finding.id
        for finding in findings
        if finding.shared
        and finding.groups > 1
        and finding.site.node in nodes
        and before_batch_norm(nodes[finding.site.node], graph_module)
    )
