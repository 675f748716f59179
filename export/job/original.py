"""A torch model with all that its plain export needs: example inputs, and the sizes that stay open."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.export import ExportedProgram

from export.dynamic import dynamic_shapes, program_inputs, program_shapes
from export.loading import load_model
from export.write_onnx.exporter import distinct_tensors
from fx_passes.errors import UsageError


@dataclass(frozen=True)
class Original:
    """What ``export_original`` takes.

    Args:
        inputs: positional arguments of ``model``, no tensor twice.
        dynamic_shapes: which sizes stay open, as for ``torch.export.export``.
    """

    model: nn.Module | ExportedProgram
    inputs: tuple[Any, ...]
    dynamic_shapes: Any


def original_of(
    model: nn.Module | ExportedProgram, example_inputs: Sequence[Any] | None, shapes: Any
) -> Original:
    """A model with its inputs and open sizes. An exported program has its own.

    Raises:
        CaptureError: a program fixes a size that should stay open.
        UsageError: there are no example inputs, or ``shapes`` do not fit the arguments.
    """
    if isinstance(model, ExportedProgram):
        example_inputs = program_inputs(model) if example_inputs is None else example_inputs
        shapes = program_shapes(model, shapes)
    if example_inputs is None:
        raise UsageError("example inputs are needed: give --input, or return (module, example_inputs)")
    return Original(model, distinct_tensors(example_inputs), shapes)


def load_original(spec: str, inputs: tuple[str, ...], dynamic: Sequence[str]) -> Original:
    """The model that MODEL of the command line names, with ``--input`` and ``--dynamic``.

    Raises:
        LoadError: it cannot be loaded.
        CaptureError, UsageError: as for :func:`original_of`.
    """
    loaded = load_model(spec, inputs)
    shapes = dynamic_shapes(loaded.model, loaded.example_inputs, dynamic)
    return original_of(loaded.model, loaded.example_inputs, shapes)
