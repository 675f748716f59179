"""A torch model -> an ONNX file, by the stock exporter, in which each shared kernel stays one initializer.

``torch.onnx.export(dynamo=True)`` ends with onnxscript's optimizer, whose constant folding turns
``Expand(kernel)`` into a full repeated initializer. Here the same optimizer runs with that one fold
forbidden: a node on the way from an initializer through an Expand to the weight of a convolution stays.
onnxruntime folds it when a session starts, so it costs no time at run time. The bias goes behind the
convolution (``separate_bias.py``), for those who quantise the file.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx_ir as ir
import onnxscript.optimizer
import onnxscript.rewriter.onnx_fusions
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from export.write_onnx.exact_constants import exact_constants
from export.write_onnx.expansions import Expansions
from export.write_onnx.file import save
from export.write_onnx.library import Call, Library, Place, hide_lowered, open_sizes, place_of, splice
from export.write_onnx.separate_bias import separate_biases
from fx_passes.errors import ExportError

log = logging.getLogger(__name__)


def to_onnx(
    model: nn.Module | ExportedProgram,
    example_inputs: Sequence[Any],
    path: Path | str,
    *,
    dynamic_shapes: Any = None,
    output_names: Sequence[str] | None = None,
    places: list[Place] | None = None,
) -> Path:
    """Write ``model`` to ``path``, each shared kernel as one initializer with an Expand.

    Args:
        model: a module, most usefully what ``share_kernels`` returned.
        example_inputs: positional arguments of ``model``.
        path: the file; written to a temporary name and moved into place when it is complete and valid.
        dynamic_shapes: as for ``torch.onnx.export``.
        output_names: of the file; without them, those that torch gives.
        places: takes where the lowered sites are in the file.

    Raises:
        ExportError: torch cannot export the model, or ``onnx.checker`` refuses the result.

    Example:
        >>> import onnx, tempfile
        >>> from fx_passes import SharedKernelConv2d
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     conv = SharedKernelConv2d(3, 3, 3, groups=3).eval()
        ...     file = to_onnx(conv, (torch.rand(1, 3, 8, 8),), Path(folder) / "conv.onnx")
        ...     [tuple(i.dims) for i in onnx.load(file).graph.initializer if i.name == "weight"]
        [(1, 1, 3, 3)]
    """
    hidden = hide_lowered(model)
    program = export_program(hidden.model, example_inputs, dynamic_shapes)
    fold_constants(program.model)
    calls: list[Call] = []
    if hidden.modules:
        sizes = open_sizes(hidden.modules)
        library = export_program(Library(hidden.modules), hidden.inputs, sizes)
        fold_constants(library.model)
        calls = splice(program.model, library.model)
    if output_names is not None:
        _name_outputs(program.model.graph, output_names)
    file = save(program.model, Path(path))
    if places is not None:
        places += [place_of(hidden, call) for call in calls]
    return file


def _name_outputs(graph: ir.Graph, names: Sequence[str]) -> None:
    """Give the outputs their names, and what had one of them within the graph another."""
    inner = [value for node in graph for value in node.outputs if value.name in names]
    for value in [*inner, *(v for v in graph.initializers.values() if v.name in names)]:
        value.name = f"{value.name}_inner"
    for output, name in zip(graph.outputs, names, strict=True):
        if output not in graph.inputs:
            output.name = name


def fold_constants(model: ir.Model) -> None:
    """Optimize a model as torch's exporter does, but for the expansion of shared kernels."""
    expansions = Expansions(model)
    kept, folded = expansions.kept, expansions.folded
    with _quiet(), exact_constants(model):
        onnxscript.optimizer.optimize_ir(
            model,
            should_fold=lambda node: False if node in kept else True if node in folded else None,
        )
        onnxscript.rewriter.onnx_fusions.fuse(model)
    expansions.name_sources()
    separate_biases(model, kept)


def stock_export(
    model: nn.Module | ExportedProgram,
    example_inputs: Sequence[Any],
    path: Path | str,
    *,
    dynamic_shapes: Any = None,
) -> Path:
    """Write ``model`` as ``torch.onnx.export(dynamo=True)`` does, with nothing of ours in it but that
    ``x + 1e-8`` stays what it is, see ``exact_constants.py``.

    Raises:
        ExportError: as for :func:`to_onnx`.
    """
    program = export_program(model, example_inputs, dynamic_shapes)
    with _quiet(), exact_constants(program.model):
        program.optimize()
    return save(program.model, Path(path))


def distinct_tensors(inputs: Sequence[Any]) -> tuple[Any, ...]:
    """``inputs`` with copies of tensors given again: the exporter takes one object for one input."""
    seen: set[int] = set()

    def own(leaf: Any) -> Any:
        if isinstance(leaf, Tensor) and id(leaf) in seen:
            return leaf.clone()
        seen.add(id(leaf))
        return leaf

    return pytree.tree_map(own, tuple(inputs))  # type: ignore[no-any-return]


def export_program(
    model: nn.Module | ExportedProgram, inputs: Sequence[Any], dynamic_shapes: Any
) -> torch.onnx.ONNXProgram:
    """What torch's exporter makes of ``model``, in memory, before its optimizer.

    Raises:
        ExportError: torch cannot export the model.
    """
    try:
        with warnings.catch_warnings(), _quiet():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                model,
                # A dict at the end would be taken for keyword arguments.
                (*distinct_tensors(inputs), {}),
                dynamo=True,
                verbose=False,
                dynamic_shapes=dynamic_shapes,
                optimize=False,
            )
    except (Exception, SystemExit) as error:  # the exporter wraps whatever the model raised
        cause = error.__cause__ or error
        lines = [line for line in str(cause).strip().splitlines() if line.strip()]
        detail = lines[0] if lines else type(cause).__name__
        raise ExportError(f"torch.onnx.export failed: {type(cause).__name__}: {detail[:300]}") from error
    assert program is not None
    return program


@contextmanager
def _quiet() -> Iterator[None]:
    """torch's exporters log at WARNING what is of no use to a user of this project."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "torch.export", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
