"""The first stage: the original model, and its file by the stock exporter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn
from torch.export import ExportedProgram

from export.runtime.arrays import tensor_arrays
from export.runtime.session import Array, open_session, run
from export.stages import Stages
from export.write_onnx.exporter import stock_export
from fx_passes.capture.asked_sizes import OpenSizes
from fx_passes.capture.inference import capture_for_inference
from fx_passes.capture.open_sizes import open_sizes
from fx_passes.capture.routes import Capture
from fx_passes.graph.torch_internals import as_exporting, forward_pre_hooks


@dataclass(frozen=True)
class Source:
    """The original, as all later stages take it.

    Args:
        model: it is never changed.
        inputs: positional arguments of ``model``. The result is verified and measured on them.
        sizes: what the model needs of its open sizes. None: no size is open.
        arrays: the tensors among ``inputs``, in the order of the inputs of the file.
        baseline: the stock export of ``model``.
        folder: the stages write their files below it.
    """

    model: nn.Module | ExportedProgram
    inputs: tuple[Any, ...]
    sizes: OpenSizes | None
    arrays: Sequence[Array]
    baseline: Path
    folder: Path

    @property
    def dynamic_shapes(self) -> Any:
        """Which sizes stay open, as for ``torch.export.export``."""
        return self.sizes.dynamic_shapes if self.sizes else None

    def capture(self) -> Capture:
        """A new capture for inference, which may be rewritten in place."""
        with as_exporting():
            captured = capture_for_inference(self.model, self.inputs, dynamic_shapes=self.dynamic_shapes)
        if isinstance(self.model, ExportedProgram):
            # torch's check of the inputs requires keywords for inputs that were captured by keyword.
            forward_pre_hooks(captured.graph_module).clear()
        return captured


def export_original(
    model: nn.Module | ExportedProgram,
    inputs: tuple[Any, ...],
    dynamic_shapes: Any,
    folder: Path,
    name: str,
    stages: Stages,
) -> Source:
    """Export the original, and run it in onnxruntime once before more work is done.

    Args:
        folder: an empty folder for the files of all stages.
        name: the name of the output. A file with external data contains its own name, so both files get it.

    Raises:
        ExportError: torch cannot export the model, or onnxruntime cannot run it on its example inputs.
    """
    with as_exporting():
        sizes = open_sizes(model, inputs, dynamic_shapes)
    source = Source(model, inputs, sizes, tensor_arrays(inputs), folder / "baseline" / name, folder)
    source.baseline.parent.mkdir()
    with stages.stage("exporting the original"):
        stock_export(model, inputs, source.baseline, dynamic_shapes=source.dynamic_shapes)
    with stages.stage("running the original"):
        run(open_session(source.baseline), source.arrays)
    return source
