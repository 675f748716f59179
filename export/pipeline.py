"""The main job: find, share, export, verify, measure; and only then put the file in its place."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn
from torch.export import ExportedProgram

from export.dynamic import program_inputs, program_shapes
from export.job import Job
from export.report.result import Report
from export.runtime.environment import environment
from export.runtime.files import size_of
from export.stages import Progress, Stages
from export.tune.decide import Decide
from export.tune.search import Timings
from export.write_onnx.exporter import distinct_tensors
from export.write_onnx.file import folder_beside, move
from fx_passes.errors import ExportError, UsageError
from fx_passes.plan import Plan
from fx_passes.records import EXACTNESS, Exactness

LOWERINGS = ("tuned", "static", "expand")


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
        dynamic_shapes: as for ``torch.onnx.export``; sizes get the bounds that the model needs.
        threads: threads of the onnxruntime sessions that are timed.
        budget: seconds that tuning may spend on timing, the opening of sessions included; what exports take
            is in ``Report.seconds``.
        seconds: how long to measure the result at most, the opening of sessions included; 0: not.
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
    if isinstance(model, ExportedProgram):
        example_inputs = program_inputs(model) if example_inputs is None else example_inputs
        dynamic_shapes = program_shapes(model, dynamic_shapes)
    if example_inputs is None:
        raise UsageError("example inputs are needed: give --input, or return (module, example_inputs)")
    path = Path(path)
    if not path.parent.is_dir():
        raise ExportError(f"cannot write {path}: {path.parent} is not a folder")
    if path.is_dir():
        raise ExportError(f"cannot write {path}: it is a folder")
    how = Decide(lowering, exactness, plan, threads, budget, timings or Timings())
    stages = Stages(progress)
    with folder_beside(path) as folder:
        job = Job(model, distinct_tensors(example_inputs), dynamic_shapes, folder, path.name, stages)
        job.export_baseline()
        job.rewrite(how)
        job.verify_or_put_back(how)
        speed = job.measure(how, seconds)
        sizes = [size_of(file) for file in (job.baseline, job.optimized)]
        move(job.optimized, path)
    return Report(
        model=name or type(model).__name__,
        output=path,
        lowering="plan" if plan else lowering,
        route=job.captured.route,
        findings=tuple(job.findings),
        equivalence=job.equivalence,
        speed=speed,
        baseline_bytes=sizes[0],
        optimized_bytes=sizes[1],
        environment=environment(threads),
        folded=job.folded,
        plan=job.plan,
        kept=job.reasons,
        rejected=job.captured.rejected,
        seconds=stages.seconds,
        sizes=job.sizes.notes if job.sizes else (),
    )
