"""A torch model -> an ONNX file, by the stock exporter. Each shared kernel stays one initializer.

``torch.onnx.export(dynamo=True)`` ends with the optimizer of onnxscript. Its constant folding turns
``Expand(kernel)`` into a full repeated initializer. Here the same optimizer runs, but this one fold is
forbidden: the nodes from an initializer through an Expand to the weight of a convolution stay. onnxruntime
folds them when a session starts, so they cost nothing at run time. The bias is added behind the convolution
(``separate_bias.py``), so that the file can be quantized.
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

from export.write_onnx.exact_constants import exact_constants
from export.write_onnx.expansions import Expansions
from export.write_onnx.file import save
from export.write_onnx.library import Library, hide_lowered, open_dims, splice
from export.write_onnx.separate_bias import separate_biases
from export.write_onnx.shape_arithmetic import simplify_shapes
from export.write_onnx.traces import remove_traces
from fx_passes.capture.larger_example import larger_example
from fx_passes.errors import ExportError
from fx_passes.graph.torch_internals import pytree

log = logging.getLogger(__name__)


def to_onnx(
    model: nn.Module | ExportedProgram,
    example_inputs: Sequence[Any],
    path: Path | str,
    *,
    dynamic_shapes: Any = None,
    keep_traces: bool = False,
) -> Path:
    """Write ``model`` to ``path``, with each shared kernel as one initializer and an Expand.

    Args:
        model: a module, for example what ``share_kernels`` returned.
        example_inputs: positional arguments of ``model``.
        path: the file. It is written under a temporary name, and moved to its place when it is complete and
            valid.
        dynamic_shapes: as for ``torch.onnx.export``.
        keep_traces: keep what the exporter notes of each node: the lines of the code that made it, with the
            paths of this machine.

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
    program = export_program(hidden.model, example_inputs, dynamic_shapes, keep_traces=keep_traces)
    fold_constants(program.model)
    if hidden.modules:
        sizes = [open_dims(module.resample) for module in hidden.modules]
        splice(program.model, export_library(hidden.modules, hidden.inputs, sizes))
    return save(program.model, Path(path))


def export_library(
    modules: Sequence[nn.Module], inputs: Sequence[Tensor], sizes: Sequence[dict[int, Any]]
) -> ir.Model:
    """Modules as one model, in which each reads one input and gives one output.

    Args:
        modules: modules with one input and one output each.
        inputs: an input of each.
        sizes: the open sizes of each input, as for ``torch.export.export``.

    Raises:
        ExportError: torch cannot export a module.
    """
    # The exporter would take a tensor that is given twice for one input. An open size of 1 would be fixed.
    pairs = zip(inputs, sizes, strict=True)
    own = [(larger_example((x,), [dims]) or (x.clone(),))[0] for x, dims in pairs]
    dynamic = {"inputs": tuple(sizes)} if any(sizes) else None
    library = export_program(Library(modules), own, dynamic).model
    fold_constants(library)
    simplify_shapes(library)
    return library


def fold_constants(model: ir.Model) -> None:
    """Optimize a model as torch's exporter does, but keep the expansion of shared kernels."""
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
    keep_traces: bool = False,
) -> Path:
    """Write ``model`` as ``torch.onnx.export(dynamo=True)`` does, with two differences: ``x + 1e-8`` stays
    what it is (``exact_constants.py``), and no path of this machine is noted (``traces.py``).

    Raises:
        ExportError: as for :func:`to_onnx`.
    """
    program = export_program(model, example_inputs, dynamic_shapes, keep_traces=keep_traces)
    with _quiet(), exact_constants(program.model):
        program.optimize()
    return save(program.model, Path(path))


def distinct_tensors(inputs: Sequence[Any]) -> tuple[Any, ...]:
    """``inputs``, with copies of repeated tensors: the exporter takes one object for one input."""
    seen: set[int] = set()

    def own(leaf: Any) -> Any:
        if isinstance(leaf, Tensor) and id(leaf) in seen:
            return leaf.clone()
        seen.add(id(leaf))
        return leaf

    return pytree.tree_map(own, tuple(inputs))  # type: ignore[no-any-return]


def export_program(
    model: nn.Module | ExportedProgram,
    inputs: Sequence[Any],
    dynamic_shapes: Any,
    *,
    keep_traces: bool = False,
) -> torch.onnx.ONNXProgram:
    """What torch's exporter makes of ``model``, in memory, before its optimizer runs.

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
    if not keep_traces:
        remove_traces(program.model)
    return program


@contextmanager
def _quiet() -> Iterator[None]:
    """Within it, torch's exporters do not log warnings that are of no use to a user of this project."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "torch.export", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
