"""The main job: find, share, export, verify, measure; and only then put the file in its place."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.fx import Node

from export.blame import blame_site
from export.dynamic import program_shapes
from export.equivalence import Equivalence, check_equivalence
from export.measure import Timing, measure_speed
from export.onnx_export import move, stock_export, to_onnx
from export.reference import float64_reference, tensor_arrays, with_arrays
from export.report import Report, count_shared, environment
from fx_passes.capture import Capture, capture, clone_module
from fx_passes.errors import ExportError, NotEquivalentError, UsageError
from fx_passes.records import Finding
from fx_passes.share import share_in_place

LOWERINGS = ("expand",)
Progress = Callable[[str], None]


def optimize(
    model: nn.Module | ExportedProgram,
    example_inputs: Sequence[Any] | None,
    path: Path | str,
    *,
    lowering: str = "expand",
    dynamic_shapes: Any = None,
    threads: int = 1,
    seconds: float = 10.0,
    name: str | None = None,
    progress: Progress = lambda stage: None,
) -> Report:
    """Write an ONNX file in which each shared kernel is stored once, verified against the original.

    Args:
        model: an ``nn.Module``, ``torch.fx.GraphModule`` or ``torch.export.ExportedProgram``; not changed.
        example_inputs: positional arguments of ``model``; an exported program brings its own.
        path: the file to write. It is replaced only once everything has been verified.
        lowering: ``"expand"``, the one-parameter expanded convolution, equal to the original bit for bit.
        dynamic_shapes: as for ``torch.export.export``.
        threads: threads of the onnxruntime sessions that are timed.
        seconds: how long to measure at most.
        name: what the report calls the model.
        progress: called with what is being done.

    Returns:
        A :class:`Report`; its ``to_json()`` is the JSON contract.

    Raises:
        NotEquivalentError: onnxruntime found a difference; ``path`` is as it was before.
        CaptureError, ExportError: the model could not be captured or exported.
        UsageError: an argument is wrong.
    """
    if lowering not in LOWERINGS:
        raise UsageError(f"lowering must be one of {', '.join(LOWERINGS)}, got {lowering!r}")
    if isinstance(model, ExportedProgram) and example_inputs is None and model.example_inputs:
        example_inputs = model.example_inputs[0]
    if isinstance(model, ExportedProgram) and dynamic_shapes is None:
        dynamic_shapes = program_shapes(model)
    if example_inputs is None:
        raise UsageError("example inputs are needed: give --input, or return (module, example_inputs)")
    path, inputs = Path(path), tuple(example_inputs)
    if not path.parent.is_dir():
        raise ExportError(f"cannot write {path}: {path.parent} is not a folder")
    if path.is_dir():
        raise ExportError(f"cannot write {path}: it is a folder")
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        # Both have the name of the output, which a file with external data holds within.
        baseline, optimized = (Path(folder) / kind / path.name for kind in ("baseline", "optimized"))
        baseline.parent.mkdir()
        progress("exporting the original")
        stock_export(model, inputs, baseline, dynamic_shapes=dynamic_shapes)
        progress("capturing the graph")
        captured = _capture(model, inputs, dynamic_shapes)
        progress("finding and sharing kernels")
        # onnxruntime is to see kernels computed by the same arithmetic in both files: constants are not
        # folded by torch, whose exp() may differ from the exporter's in the last bit.
        _, findings = share_in_place(captured.graph_module, fold_constants=False)
        if count_shared(findings):
            progress("exporting the shared model")
            shared = captured.graph_module
            optimized.parent.mkdir()
            to_onnx(shared, inputs, optimized, dynamic_shapes=dynamic_shapes)
        else:
            shutil.copytree(baseline.parent, optimized.parent)
        equivalence = _verify(
            model, captured, findings, baseline, optimized, inputs, dynamic_shapes, progress
        )
        speed = _measure(baseline, optimized, inputs, threads, seconds, progress)
        sizes = [_size(file) for file in (baseline, optimized)]
        move(optimized, path)
    return Report(
        model=name or type(model).__name__,
        output=path,
        lowering=lowering,
        route=captured.route,
        findings=tuple(findings),
        equivalence=equivalence,
        speed=speed,
        baseline_bytes=sizes[0],
        optimized_bytes=sizes[1],
        environment=environment(threads),
        folded=_before_batch_norm(captured, findings),
    )


def _capture(model: nn.Module | ExportedProgram, inputs: tuple[Any, ...], dynamic_shapes: Any) -> Capture:
    """A capture that may be rewritten in place: never the model itself."""
    captured = capture(model, inputs, dynamic_shapes=dynamic_shapes)
    if captured.graph_module is model:
        return replace(captured, graph_module=clone_module(captured.graph_module))
    return captured


def _before_batch_norm(captured: Capture, findings: Sequence[Finding]) -> frozenset[str]:
    """The shared sites whose only user is a batch norm in evaluation mode, which the exporter folds."""
    nodes = {node.name: node for node in captured.graph_module.graph.nodes}
    folded = set()
    for finding in findings:
        users = list(nodes[finding.site.node].users) if finding.site.node in nodes else []
        if finding.shared and finding.groups > 1 and len(users) == 1 and _is_batch_norm(users[0], captured):
            folded.add(finding.id)
    return frozenset(folded)


def _is_batch_norm(node: Node, captured: Capture) -> bool:
    if node.op == "call_module":
        module = captured.graph_module.get_submodule(str(node.target))
        return isinstance(module, nn.modules.batchnorm._BatchNorm) and not module.training
    if node.target is torch.ops.aten.batch_norm.default:
        return not node.args[5]
    return node.target is torch.ops.aten._native_batch_norm_legit_no_training.default


def _verify(
    model: nn.Module | ExportedProgram,
    captured: Capture,
    findings: Sequence[Finding],
    baseline: Path,
    optimized: Path,
    inputs: tuple[Any, ...],
    dynamic_shapes: Any,
    progress: Progress,
) -> Equivalence:
    equivalence = check_equivalence(
        baseline,
        optimized,
        example_inputs=tensor_arrays(inputs),
        reference=float64_reference(model, inputs),
        require_bitwise=True,
        progress=lambda case: progress(f"checking equivalence: {case}"),
    )
    if equivalence.passed:
        return equivalence
    assert equivalence.mismatch is not None and equivalence.failing_inputs is not None
    original = _capture(model, inputs, dynamic_shapes)
    failing = with_arrays(inputs, equivalence.failing_inputs)
    site = blame_site(original.graph_module, captured.graph_module, findings, failing)
    cause = f"caused by site {site}" if site else "no site differs in PyTorch: the export causes it"
    raise NotEquivalentError(f"not equivalent: {equivalence.mismatch}; {cause}")


def _measure(
    baseline: Path,
    optimized: Path,
    inputs: tuple[Any, ...],
    threads: int,
    seconds: float,
    progress: Progress,
) -> Timing | None:
    if seconds <= 0:
        return None
    progress("measuring speed")
    return measure_speed(baseline, optimized, tensor_arrays(inputs), threads=threads, seconds=seconds)


def _size(file: Path) -> int:
    data = file.with_name(f"{file.name}.data")
    return file.stat().st_size + (data.stat().st_size if data.exists() else 0)
