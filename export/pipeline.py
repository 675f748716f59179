"""The main job: find, share, export, verify, measure. The file is put in its place last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn
from torch.export import ExportedProgram

from export.job.details import gathered
from export.job.keep import verify_or_keep
from export.job.measure import Measured, measure_or_keep
from export.job.original import original_of
from export.job.rewrite import rewrite
from export.job.source import Source, export_original, open_file
from export.read_onnx.model import OnnxModel, read_model
from export.report.result import Report
from export.runtime.environment import environment
from export.runtime.files import size_of
from export.runtime.session import Array
from export.runtime.target import Target, targets_of
from export.stages import Progress, Stages
from export.tune.options import Options, Timings
from export.tune.tune_at import Batch, Wanted, nothing_open, shapes_to_tune_at
from export.verify.cases import resized
from export.write_onnx.file import folder_beside, move_model
from export.write_onnx.written_file import require_free, weight_files
from fx_passes.errors import ExportError, UsageError
from fx_passes.plan import Plan
from fx_passes.records import Exactness


def optimize(
    model: nn.Module | ExportedProgram | Path | str,
    example_inputs: Sequence[Any] | Mapping[str, Any] | None,
    path: Path | str,
    *,
    lowering: str = "tuned",
    exactness: Exactness = "finite",
    plan: Plan | None = None,
    dynamic_shapes: Any = None,
    tune_at: Sequence[Wanted] = (),
    batch_sizes: Sequence[int] = (),
    threads: int | Sequence[int] = 1,
    target: str = "onnxruntime",
    budget: float = 60.0,
    seconds: float = 10.0,
    timings: Timings | None = None,
    stamp: bool = False,
    keep_traces: bool = False,
    name: str | None = None,
    details: bool = False,
    progress: Progress = lambda stage: None,
) -> Report:
    """Write an ONNX file in which shared kernels are stored once and computed fast. It is verified and
    measured.

    Args:
        model: an ``nn.Module``, ``torch.fx.GraphModule`` or ``torch.export.ExportedProgram``, or the path of
            an ONNX file; not changed.
        example_inputs: positional arguments of ``model``. An exported program has its own. Of an ONNX file:
            tensors or arrays, all of them in order or some by name; its inputs of fixed sizes can be left
            out.
        path: the file to write. It is replaced only after everything was verified.
        lowering: ``"tuned"``: the fastest in ``target`` on this machine. ``"static"``: chosen by rules that
            were made for onnxruntime, the same on every machine and for every target. ``"expand"``: the
            expanded convolution, equal to the original bit for bit.
        exactness: the least exact that may be chosen: ``"bitwise"``, ``"reordered"`` or ``"finite"``.
        plan: earlier decisions, instead of ``lowering``.
        dynamic_shapes: as for ``torch.onnx.export``. Sizes get the bounds that the model needs.
        tune_at: further sizes at which the result should be fast, if sizes are open: for each the shapes of
            all inputs of the file in their order, or of some by name, as in ``[{"x": (1, 3, 480, 640)}]``.
        batch_sizes: further batch sizes at which the result should be fast, if the batch is open.
        threads: threads of the sessions that are timed. With several numbers the result should be fast with
            each; the first is that of ``Report.speed``.
        target: where the file will run: ``"onnxruntime"`` (on the CPU), ``"onnxruntime:CUDA"`` or another
            installed provider, or ``"openvino"``. The lowerings are chosen and measured there. The result is
            compared with the original in onnxruntime and there.
        budget: seconds that tuning may spend on timing and on opening sessions. ``Report.seconds`` has the
            time of exports.
        seconds: the longest time to measure the result, with the opening of sessions. 0: do not measure.
        timings: times of an earlier tuning. New times are added.
        stamp: note in the file what was done, as in each rewritten file from a torch model.
        keep_traces: keep the stack traces that torch's exporter notes, with paths of this machine.
        name: the name of the model in the report.
        details: gather what ``export.write_html`` shows besides: kernels, nodes, times by operator.
        progress: called with each stage.

    Returns:
        A :class:`Report`. ``to_json()`` gives the JSON contract, ``plan`` has the decisions.

    Raises:
        NotEquivalentError: onnxruntime or the target found a difference. ``path`` is as it was before.
        CaptureError, ExportError: the model could not be captured or exported.
        UsageError: an argument is wrong, or the plan was made for another model.
    """
    targets = targets_of(target, threads)
    more_options: Any = {"stamp": stamp, "keep_traces": keep_traces, "details": details}
    options = Options(
        lowering, exactness, plan, timings or Timings(), targets, budget, seconds, **more_options
    )
    path, stages = Path(path), Stages(progress)
    tune_at = [*tune_at, *map(Batch, batch_sizes)]
    if isinstance(model, Path | str):
        if dynamic_shapes is not None:
            raise UsageError(
                "the open sizes of an ONNX file are those that it states: give no dynamic_shapes"
            )
        file = read_model(Path(model))
        return optimize_file(file, example_inputs, path, options, stages, tune_at=tune_at, name=name)
    if isinstance(example_inputs, Mapping):
        raise UsageError("example inputs by name are for ONNX files; give a tuple of positional arguments")
    more: Any = {"dynamic_shapes": dynamic_shapes, "tune_at": tune_at, "name": name}
    return optimize_model(model, example_inputs, path, options, stages, **more)


def optimize_model(
    model: nn.Module | ExportedProgram,
    example_inputs: Sequence[Any] | None,
    path: Path,
    options: Options,
    stages: Stages,
    *,
    dynamic_shapes: Any = None,
    tune_at: Sequence[Wanted] = (),
    name: str | None = None,
) -> Report:
    """``optimize`` of a torch model, with most of its options in one record."""
    original = original_of(model, example_inputs, dynamic_shapes)
    inputs, shapes = original.inputs, original.dynamic_shapes
    if tune_at and shapes is None:
        raise nothing_open(tune_at)
    _require_writable(path)
    with folder_beside(path) as folder:
        traces = {"keep_traces": options.keep_traces}
        source = export_original(model, inputs, shapes, folder, path.name, stages, **traces)
        source = replace(source, tune_at=_workloads(tune_at, source))
        _run_in_target(source, options.target, stages)
        return _optimized(source, path, name or type(model).__name__, options, stages)


def optimize_file(
    model: OnnxModel,
    example_inputs: Sequence[Any] | Mapping[str, Any] | None,
    path: Path,
    options: Options,
    stages: Stages,
    *,
    tune_at: Sequence[Wanted] = (),
    name: str | None = None,
) -> Report:
    """``optimize`` of an ONNX file, with most of its options in one record."""
    _require_writable(path)
    if path.resolve() == model.path.resolve():
        raise UsageError(f"{path} would overwrite the model that is read")
    require_free(model, path)
    with folder_beside(path) as folder:
        source = open_file(model, example_inputs, folder, stages)
        source = replace(source, tune_at=_workloads(tune_at, source))
        _run_in_target(source, options.target, stages)
        return _optimized(source, path, name or str(model.path), options, stages)


def _workloads(wanted: Sequence[Wanted], source: Source) -> tuple[list[Array], ...]:
    """Inputs of the sizes that are wanted, besides those of the example.

    Raises:
        UsageError: the model does not take such sizes.
    """
    example = tuple(array.shape for array in source.arrays)
    asked = shapes_to_tune_at(wanted, source.model, example, source.sizes)
    return tuple(resized(source.arrays, shapes) for shapes in asked if shapes != example)


def _run_in_target(source: Source, target: Target, stages: Stages) -> None:
    """Run the original in a target other than onnxruntime's CPU once before more work is done.

    Raises:
        ExportError: it does not run there.
    """
    if source.arrays and not target.is_usual:
        with stages.stage(f"running the original in {target}"):
            target.open(source.baseline).run(source.arrays)


def _require_writable(path: Path) -> None:
    if not path.parent.is_dir():
        raise ExportError(f"cannot write {path}: {path.parent} is not a folder")
    if path.is_dir():
        raise ExportError(f"cannot write {path}: it is a folder")
    if path.exists() and not path.is_file():
        raise ExportError(f"cannot write {path}: it is no regular file")


def _optimized(source: Source, path: Path, name: str, options: Options, stages: Stages) -> Report:
    """Rewrite, verify and measure; then put the file in its place."""
    verified = verify_or_keep(source, rewrite(source, options, stages), options, stages)
    measured = measure_or_keep(source, verified, options, stages)
    report = _report(name, path, source, measured, options, stages)
    move_model(measured.verified.rewritten.path, path, weight_files(source.model))
    return report


def _report(
    name: str, path: Path, source: Source, measured: Measured, options: Options, stages: Stages
) -> Report:
    """The report on the stages, made while their files still exist."""
    rewritten = measured.verified.rewritten
    details = gathered(source, measured, options, stages) if options.details else None
    return Report(
        model=name,
        output=path,
        lowering=options.chosen_by,
        route=source.route,
        findings=rewritten.findings,
        equivalence=measured.verified.equivalence,
        speed=measured.speed[0][1] if measured.speed else None,
        speed_at=measured.speed,
        baseline_bytes=size_of(source.baseline),
        optimized_bytes=size_of(rewritten.path),
        environment=environment(*options.targets),
        once=rewritten.once,
        plan=rewritten.plan,
        kept=rewritten.reasons,
        outside=rewritten.outside,
        whole=rewritten.whole,
        seconds=stages.seconds,
        sizes=source.sizes.notes if source.sizes else (),
        stamped=options.stamp,
        details=details,
    )
