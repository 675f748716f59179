"""The main job: find, share, export, verify, measure; and only then put the file in its place."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn
from torch.export import ExportedProgram
from torch.fx import GraphModule

from export.blame import blame_site
from export.decide import Decide
from export.dynamic import program_shapes
from export.equivalence import Equivalence, check_equivalence
from export.measure import Timing, measure_speed
from export.onnx_export import move, output_names, stock_export, to_onnx
from export.reference import float64_reference, tensor_arrays, with_arrays
from export.report import Report, count_shared, environment
from export.tune import Timings
from fx_passes.capture import Capture, capture, clone_module
from fx_passes.errors import ExportError, NotEquivalentError, UsageError
from fx_passes.find import judge
from fx_passes.lower import before_batch_norm, lower_in_place, lowerable_sites
from fx_passes.plan import Plan
from fx_passes.records import EXACTNESS, Exactness, Finding
from fx_passes.rewrite import inline_modes
from fx_passes.share import share_in_place

LOWERINGS = ("tuned", "static", "expand")
Progress = Callable[[str], None]


def optimize(
    model: nn.Module | ExportedProgram,
    example_inputs: Sequence[Any] | None,
    path: Path | str,
    *,
    lowering: str = "tuned",
    exactness: Exactness = "finite",
    plan: Plan | None = None,
    dynamic_shapes: Any = None,
    threads: int = 1,
    budget: float = 60.0,
    seconds: float = 10.0,
    timings: Timings | None = None,
    name: str | None = None,
    progress: Progress = lambda stage: None,
) -> Report:
    """Write an ONNX file in which shared kernels are stored once and computed fast, verified and measured.

    Args:
        model: an ``nn.Module``, ``torch.fx.GraphModule`` or ``torch.export.ExportedProgram``; not changed.
        example_inputs: positional arguments of ``model``; an exported program brings its own.
        path: the file to write. It is replaced only once everything has been verified.
        lowering: ``"tuned"``: what is fastest in onnxruntime here; ``"static"``: what rules choose, the same
        on
            every machine; ``"expand"``: the expanded convolution, equal to the original bit for bit.
        exactness: the least exact that may be chosen: ``"bitwise"``, ``"reordered"`` or ``"finite"``.
        plan: what was decided before, in place of ``lowering``.
        dynamic_shapes: as for ``torch.export.export``.
        threads: threads of the onnxruntime sessions that are timed.
        budget: seconds that tuning may spend on timing.
        seconds: how long to measure the result at most; 0: not.
        timings: what is known from an earlier tuning, and is completed by this one.
        name: what the report calls the model.
        progress: called with what is being done.

    Returns:
        A :class:`Report`; its ``to_json()`` is the JSON contract, ``plan`` what was decided.

    Raises:
        NotEquivalentError: onnxruntime found a difference; ``path`` is as it was before.
        CaptureError, ExportError: the model could not be captured or exported.
        UsageError: an argument is wrong, or the plan was made for another model.
    """
    if lowering not in LOWERINGS:
        raise UsageError(f"lowering must be one of {', '.join(LOWERINGS)}, got {lowering!r}")
    if exactness not in EXACTNESS:
        raise UsageError(f"exactness must be one of {', '.join(EXACTNESS)}, got {exactness!r}")
    if isinstance(model, ExportedProgram) and example_inputs is None and model.example_inputs:
        example_inputs = model.example_inputs[0]
    if isinstance(model, ExportedProgram) and dynamic_shapes is None:
        dynamic_shapes = program_shapes(model)
    if example_inputs is None:
        raise UsageError("example inputs are needed: give --input, or return (module, example_inputs)")
    path = Path(path)
    if not path.parent.is_dir():
        raise ExportError(f"cannot write {path}: {path.parent} is not a folder")
    if path.is_dir():
        raise ExportError(f"cannot write {path}: it is a folder")
    how = Decide(lowering, exactness, plan, threads, budget, timings or Timings(), progress)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        job = _Job(model, tuple(example_inputs), dynamic_shapes, Path(folder), path.name, progress)
        job.export_baseline()
        job.rewrite(how)
        equivalence = job.verify()
        speed = job.measure(threads, seconds)
        sizes = [_size(file) for file in (job.baseline, job.optimized)]
        move(job.optimized, path)
    return Report(
        model=name or type(model).__name__,
        output=path,
        lowering="plan" if plan else lowering,
        route=job.captured.route,
        findings=tuple(job.findings),
        equivalence=equivalence,
        speed=speed,
        baseline_bytes=sizes[0],
        optimized_bytes=sizes[1],
        environment=environment(threads),
        folded=job.folded,
        plan=job.plan,
        kept=job.reasons,
    )


class _Job:
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
        self.model, self.inputs, self.dynamic_shapes = model, inputs, dynamic_shapes
        self.progress = progress
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
        inline_modes(graph_module)
        self.progress("finding and sharing kernels")
        verdicts = judge(graph_module)
        self.findings = [verdict.finding for verdict in verdicts]
        self.plan = Plan({})
        self.reasons: dict[str, str] = {}
        lowered = 0
        if how.plan is not None or how.lowering != "expand":
            sites, self.reasons = lowerable_sites(graph_module, verdicts)
            self.plan = how.decide(graph_module, sites, self.baseline, self.inputs, self.dynamic_shapes)
            lowered = lower_in_place(graph_module, sites, self.plan)
        # onnxruntime is to see kernels computed by the same arithmetic in both files: constants are not
        # folded by torch, whose exp() may differ from the exporter's in the last bit.
        share_in_place(graph_module, fold_constants=False)
        self.folded = _before_batch_norm(graph_module, self.findings)
        if lowered or count_shared(self.findings):
            self.progress("exporting the optimised model")
            self.optimized.parent.mkdir()
            to_onnx(
                graph_module,
                self.inputs,
                self.optimized,
                dynamic_shapes=self.dynamic_shapes,
                output_names=output_names(self.baseline),
            )
        else:
            shutil.copytree(self.baseline.parent, self.optimized.parent)

    def capture(self) -> Capture:
        """A capture that may be rewritten in place: never the model itself."""
        captured = capture(self.model, self.inputs, dynamic_shapes=self.dynamic_shapes)
        if captured.graph_module is self.model:
            return replace(captured, graph_module=clone_module(captured.graph_module))
        return captured

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
        raise NotEquivalentError(f"not equivalent: {equivalence.mismatch}; {cause}")

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


def _size(file: Path) -> int:
    data = file.with_name(f"{file.name}.data")
    return file.stat().st_size + (data.stat().st_size if data.exists() else 0)
