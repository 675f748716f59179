"""One optimisation, stage by stage: export, rewrite, verify, measure."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn
from torch.export import ExportedProgram
from torch.fx import GraphModule

from export.measure import Timing, measure_speed
from export.report.result import count_shared
from export.runtime.arrays import tensor_arrays, with_arrays
from export.runtime.files import output_names
from export.runtime.session import open_session, run
from export.stages import Stages
from export.tune.candidates import in_frame, original_of
from export.tune.decide import Decide, Example
from export.verify.blame import blame_site
from export.verify.equivalence import Equivalence, check_equivalence
from export.verify.reference import float64_reference
from export.verify.site_check import check_sites
from export.write_onnx.batch_norm import REASON, before_batch_norm, folded_sites
from export.write_onnx.exporter import stock_export, to_onnx
from export.write_onnx.library import Place
from fx_passes.capture.inference import capture_for_inference
from fx_passes.capture.open_sizes import open_sizes
from fx_passes.capture.routes import Capture
from fx_passes.errors import NotEquivalentError
from fx_passes.find.find_kernels import judge_graph
from fx_passes.graph.torch_internals import as_exporting, forward_pre_hooks
from fx_passes.lower import lower_in_place
from fx_passes.resample.site import Site, lowerable_sites
from fx_passes.share.share_kernels import share_in_place

log = logging.getLogger(__name__)


class Job:
    """The stages of one optimisation, in the order in which they are called, and what they hand on."""

    def __init__(
        self,
        model: nn.Module | ExportedProgram,
        inputs: tuple[Any, ...],
        dynamic_shapes: Any,
        folder: Path,
        name: str,
        stages: Stages,
    ) -> None:
        self.model, self.stages = model, stages
        with as_exporting():
            self.sizes = open_sizes(model, inputs, dynamic_shapes)
        self.example = Example(inputs, self.sizes.dynamic_shapes if self.sizes else None)
        self.arrays = tensor_arrays(inputs)
        # Both have the name of the output, which a file with external data holds within.
        self.baseline, self.optimized = (folder / kind / name for kind in ("baseline", "optimized"))
        self.trials = folder / "trials"
        for inner in (self.baseline.parent, self.trials):
            inner.mkdir()

    def export_baseline(self) -> None:
        """The original, by the stock exporter; and onnxruntime runs it, before more work is put into it.

        Raises:
            ExportError: torch cannot export it, or onnxruntime cannot run it on its example inputs.
        """
        with self.stages.stage("exporting the original"):
            stock_export(
                self.model, self.example.inputs, self.baseline, dynamic_shapes=self.example.dynamic_shapes
            )
        with self.stages.stage("running the original"):
            run(open_session(self.baseline), self.arrays)

    def rewrite(self, how: Decide) -> None:
        """Find, decide, lower, share, export."""
        with self.stages.stage("capturing the graph"):
            self.captured = self.capture()
        graph_module = self.captured.graph_module
        with self.stages.stage("finding and sharing kernels"):
            verdicts = judge_graph(graph_module, frozen=True)
            self.findings = [verdict.finding for verdict in verdicts]
            sites, reasons = lowerable_sites(
                graph_module,
                verdicts,
                stays=lambda conv: REASON if before_batch_norm(conv, graph_module) else None,
                any_order=True,
            )
        self.reasons = reasons if how.plan is not None or how.lowering != "expand" else {}
        self.plan = how.decide(graph_module, sites, self.baseline, self.example, self.trials, self.stages)
        shutil.rmtree(self.trials)
        self._remember(graph_module, sites)
        lowered = lower_in_place(graph_module, sites, self.plan)
        # onnxruntime is to see kernels computed by the same arithmetic in both files: constants are not
        # folded by torch, whose exp() may differ from the exporter's in the last bit.
        share_in_place(graph_module, fold_constants=False)
        self.folded = folded_sites(graph_module, self.findings)
        shutil.rmtree(self.optimized.parent, ignore_errors=True)
        if lowered or count_shared(self.findings) > len(self.folded):
            with self.stages.stage("exporting the optimised model"):
                self.optimized.parent.mkdir()
                to_onnx(
                    graph_module,
                    self.example.inputs,
                    self.optimized,
                    dynamic_shapes=self.example.dynamic_shapes,
                    output_names=output_names(self.baseline),
                    places=self.places,
                )
        else:
            shutil.copytree(self.baseline.parent, self.optimized.parent)

    def _remember(self, graph_module: GraphModule, sites: Sequence[Site]) -> None:
        """What is going to be lowered, as it is before."""
        self.places: list[Place] = []
        self.originals: dict[str, nn.Module] = {}
        self.ids: dict[str, list[str]] = {}
        for site in sites:
            proposal = self.plan.choices[site.id].proposal
            if proposal is None:
                continue
            self.ids.setdefault(site.key, []).append(site.id)
            if site.key not in self.originals:
                one: nn.Module = original_of(graph_module, site)
                self.originals[site.key] = in_frame(site, one, merged=False) if proposal.merged else one

    def capture(self) -> Capture:
        """A capture for inference that may be rewritten in place: never the model itself."""
        with as_exporting():
            captured = capture_for_inference(
                self.model, self.example.inputs, dynamic_shapes=self.example.dynamic_shapes
            )
        if isinstance(self.model, ExportedProgram):
            # torch's check of the inputs, which wants those by keyword that were captured so.
            forward_pre_hooks(captured.graph_module).clear()
        return captured

    def verify(self) -> Equivalence:
        """Compare both files in onnxruntime.

        Raises:
            NotEquivalentError: they differ; with the site that causes it.
        """
        with self.stages.stage("checking equivalence"):
            return self._verify()

    def _verify(self) -> Equivalence:
        used = self.plan.exactness
        wrong, notes = check_sites(self.optimized, self.places, self.originals, self.ids)
        equivalence = check_equivalence(
            self.baseline,
            self.optimized,
            example_inputs=self.arrays,
            reference=float64_reference(self.model, self.example.inputs, notes=notes),
            require_bitwise=used == "bitwise",
            non_finite=used != "finite",
            finite_only=used == "finite",
            sizes=self.sizes,
            progress=lambda case: self.stages.say(f"checking equivalence: {case}"),
        )
        equivalence = replace(equivalence, notes=(*notes, *equivalence.notes))
        if equivalence.mismatch is None and wrong is not None:  # lost on the way to the outputs
            said = f"site {wrong.site} by itself, on random numbers: {wrong.said}"
            raise NotEquivalentError(f"not equivalent: {said}; caused by site {wrong.site}", wrong.site)
        if equivalence.passed:
            return equivalence
        if wrong is None and equivalence.sensitive is not None:
            raise NotEquivalentError(f"not equivalent: {equivalence.sensitive}")
        assert equivalence.mismatch is not None
        site = wrong.site if wrong is not None else self._blame(equivalence, bitwise=used == "bitwise")
        cause = f"caused by site {site}" if site else "no site differs in PyTorch: the export causes it"
        raise NotEquivalentError(f"not equivalent: {equivalence.mismatch}; {cause}", site)

    def _blame(self, equivalence: Equivalence, bitwise: bool) -> str | None:
        assert equivalence.failing_inputs is not None
        failing = with_arrays(self.example.inputs, equivalence.failing_inputs)
        original, rewritten = self.capture().graph_module, self.captured.graph_module
        return blame_site(original, rewritten, self.findings, failing, bitwise=bitwise)

    def verify_or_put_back(self, how: Decide) -> None:
        """Verify; where only rounding makes the files differ, keep every convolution and verify that.

        A model may decide by thresholds, and then no rounding but its own will do: whether or not the files
        happen to agree on this processor. A site that is wrong in exact arithmetic, and a plan that was asked
        for, are errors all the same.
        """
        try:
            self.equivalence = self.verify()
            return
        except NotEquivalentError as error:
            if error.site is not None or how.plan is not None or self.plan.exactness == "bitwise":
                raise
            said = str(error).removeprefix("not equivalent: ").partition("; no site")[0]
            log.warning("every convolution is kept: %s", said)
        self.equivalence = self.keep_all(how, f"the model is sensitive to rounding: {said}")

    def keep_all(self, how: Decide, why: str) -> Equivalence:
        """Keep every convolution as it was, say why, and verify that."""
        lowered = [name for name, choice in self.plan.choices.items() if choice.proposal is not None]
        made = {**self.plan.made, "kept": why}
        with self.stages.stage("keeping every convolution"):
            self.trials.mkdir(exist_ok=True)
            self.rewrite(replace(how, lowering="expand"))
            self.reasons.update(dict.fromkeys(lowered, f"kept, as {why}"))
            self.plan = replace(self.plan, made=made)
            return self.verify()

    def measure(self, how: Decide, seconds: float) -> Timing | None:
        """Time both files against each other, once they are verified.

        What was tuned, and then measures slower than the original, is not written: every convolution is
        kept, and what is kept is verified and measured in its place. Rules and plans are asked for as they
        are: there the report says that the file is slower.
        """
        if seconds <= 0:
            return None
        timing = self._timed(how.threads, seconds)
        if timing.slower and how.tunes and any(choice.proposal for choice in self.plan.choices.values()):
            low, high = timing.ci95
            said = f"{timing.speedup:.3f}x, 95 % interval {low:.3f} to {high:.3f}"
            self.equivalence = self.keep_all(how, f"the tuned file is slower than the original: {said}")
            timing = self._timed(how.threads, seconds)
        return timing

    def _timed(self, threads: int, seconds: float) -> Timing:
        with self.stages.stage("measuring speed"):
            return measure_speed(self.baseline, self.optimized, self.arrays, threads=threads, seconds=seconds)
