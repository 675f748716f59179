"""The first stage: the ONNX file that is to be rewritten. From a torch model, the stock exporter makes it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.export import ExportedProgram

from export.read_onnx.example import example_arrays
from export.read_onnx.model import OnnxModel, read_model
from export.read_onnx.seen_shapes import wrong_shape
from export.read_onnx.sites import Analysis, analyse
from export.runtime.arrays import tensor_arrays
from export.runtime.session import Array, open_session, run
from export.stages import Stages
from export.verify.cases import make_cases
from export.verify.file_reference import file_reference
from export.verify.quick_reference import quick_reference
from export.verify.reference import float64_reference
from export.verify.truth import Reference
from export.write_onnx.exporter import stock_export
from fx_passes.capture.asked_sizes import OpenSizes
from fx_passes.capture.open_sizes import open_sizes
from fx_passes.errors import LoadError
from fx_passes.graph.torch_internals import as_exporting
from fx_passes.records import OriginKind

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """The original, as all later stages take it. Its file is never changed.

    Args:
        found: the file, and the convolutions in it.
        arrays: an example of its inputs, in their order. The result is verified and measured on them.
        tune_at: further inputs for which the result should be fast, in other sizes.
        route: how the graph was got, for the report.
        reference: gives the original in float64, or None. It takes a list for its notes, and whether the
            quickest will do.
        folder: the stages write their files below it.
        sizes: what the original needs of its open sizes. None: it says nothing of them.
        exported: the file was made here from a torch model. Then each repeated kernel is stored once, even if
            the file does not become smaller, and the file is verified even if it is a copy.
    """

    found: Analysis
    arrays: Sequence[Array]
    route: str
    reference: Callable[[list[str], bool], Reference | None]
    folder: Path
    sizes: OpenSizes | None = None
    exported: bool = False
    tune_at: tuple[Sequence[Array], ...] = ()

    @property
    def workloads(self) -> tuple[Sequence[Array], ...]:
        """All inputs for which the result should be fast. The example is the first."""
        return (self.arrays, *self.tune_at)

    @property
    def model(self) -> OnnxModel:
        return self.found.model

    @property
    def baseline(self) -> Path:
        return self.model.path


def export_original(
    model: nn.Module | ExportedProgram,
    inputs: tuple[Any, ...],
    dynamic_shapes: Any,
    folder: Path,
    name: str,
    stages: Stages,
    *,
    keep_traces: bool = False,
) -> Source:
    """Export a torch model, and run its file in onnxruntime once before more work is done.

    Args:
        inputs: positional arguments of ``model``.
        dynamic_shapes: which sizes stay open, as for ``torch.export.export``.
        folder: an empty folder for the files of all stages.
        name: the name of the output. A file with external data contains its own name, so both files get it.
        keep_traces: keep the stack traces that the exporter notes.

    Raises:
        ExportError: torch cannot export the model, or onnxruntime cannot run it on its example inputs.
    """
    with as_exporting():
        sizes = open_sizes(model, inputs, dynamic_shapes)
    baseline = folder / "baseline" / name
    baseline.parent.mkdir()
    with stages.stage("exporting the original"):
        shapes, example = (sizes.dynamic_shapes, sizes.example) if sizes else (None, None)
        traces = {"keep_traces": keep_traces}
        stock_export(model, example or inputs, baseline, dynamic_shapes=shapes, **traces)
    arrays = tensor_arrays(inputs)
    with stages.stage("running the original"):
        run(open_session(baseline), arrays)

    file = read_model(baseline)

    def reference(notes: list[str], quick: bool) -> Reference | None:
        by_torch = float64_reference(model, inputs, notes=notes)
        return quick_reference(by_torch, file, arrays, notes) if quick or by_torch is None else by_torch

    with stages.stage("finding kernels"):
        found = analyse(file, "aten", _kinds(model), least=_least(file, sizes))
    route = "exported program" if isinstance(model, ExportedProgram) else "torch.export"
    return Source(found, arrays, route, reference, folder, sizes=sizes, exported=True)


def _least(file: OnnxModel, sizes: OpenSizes | None) -> dict[str, int]:
    """The smallest values that a model takes of the open sizes of its file, by their names there."""
    if sizes is None or len(sizes.shapes) != len(file.inputs):
        return {}
    ranges = sizes.ranges or {}
    pairs = zip(file.inputs.values(), sizes.shapes, strict=True)
    return {
        stated.dim_param: ranges[size][0]
        for value, shape in pairs
        for stated, size in zip(value.type.tensor_type.shape.dim, shape, strict=True)
        if stated.dim_param and size in ranges
    }


def _kinds(model: nn.Module | ExportedProgram) -> dict[str, OriginKind]:
    """What the tensors of a model are, by their names. Those that it computes from nothing are buffers."""
    names = model.graph_signature.parameters if isinstance(model, ExportedProgram) else ()
    if isinstance(model, nn.Module):
        names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    return dict.fromkeys(names, "parameter")


def open_file(
    model: OnnxModel,
    inputs: Sequence[Array | Tensor] | Mapping[str, Array | Tensor] | None,
    folder: Path,
    stages: Stages,
) -> Source:
    """Take an ONNX file, and run it in onnxruntime once before more work is done. A file without a shared
    kernel is not run: nothing will be done to it.

    Args:
        inputs: an example of its inputs: all in their order, or some by name. Those that are left out are
            made, if their sizes are known.
        folder: an empty folder for the files of all stages.

    Raises:
        UsageError: the inputs do not fit, or a size is open and was not given.
        ExportError: onnxruntime cannot run the file on them.
    """
    given: list[tuple[str | None, Array]]
    if isinstance(inputs, Mapping):
        given = [(name, _array(value)) for name, value in inputs.items()]
    else:
        given = [(None, _array(value)) for value in inputs or ()]
    with stages.stage("finding kernels"):
        found = analyse(model)
    if not given and not any(finding.shared for finding in found.findings):
        return Source(found, (), "onnx", lambda notes, quick: None, folder)
    arrays = example_arrays(model, given)
    with stages.stage("running the original"):
        session = open_session(model.path)
        run(session, arrays)
        cases = [case.inputs for case in make_cases(session, arrays)]
        del session  # weights may be large
        examples = [arrays, *(inputs for inputs in cases if _shapes(inputs) != _shapes(arrays))]
        if (wrong := wrong_shape(found, examples)) is not None:
            log.warning("%s: %s; no shape that the file states is taken", model.path, wrong)
            found = _distrusted(model, examples)
    return Source(found, arrays, "onnx", partial(_of_file, model, arrays), folder)


def _shapes(arrays: Sequence[Array]) -> list[tuple[int, ...]]:
    return [array.shape for array in arrays]


def _distrusted(model: OnnxModel, examples: Sequence[Sequence[Array]]) -> Analysis:
    """What is found if the shapes that the file states are not taken."""
    found = analyse(model, trusted=False)
    if (wrong := wrong_shape(found, examples)) is not None:
        raise LoadError(f"{model.path}: {wrong}")
    return found


def _of_file(model: OnnxModel, arrays: Sequence[Array], notes: list[str], quick: bool) -> Reference | None:
    return file_reference(model, arrays, notes)


def _array(value: Array | Tensor) -> Array:
    return tensor_arrays([value])[0] if isinstance(value, Tensor) else value
