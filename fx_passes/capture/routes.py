"""Captures an nn.Module, GraphModule or ExportedProgram as one graph module, by any route that works.

Two routes lead from a module to a graph. ``torch.export`` runs the model on the example inputs and guards its
assumptions, so it is tried first if there are inputs. It fixes the mode, and also the sizes unless it is told
otherwise. Symbolic tracing needs no inputs. It keeps modules, and leaves the training mode and the sizes
open, but it sees no values.

After either route, every weight is a ``get_attr`` node, an argument computed from such nodes, or the tensor
of a ``call_module`` convolution. Lifted parameters, buffers and constants are attributes again.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.fx import GraphModule

from fx_passes.capture.open_sizes import export_open, open_sizes
from fx_passes.capture.tracing import copy_modes, trace
from fx_passes.errors import CaptureError, FxPassesError, one_line
from fx_passes.train.checkpoint import keep_cuts

log = logging.getLogger(__name__)
Route = Literal["graph module", "exported program", "symbolic_trace", "torch.export"]


@dataclass(frozen=True)
class Capture:
    """A graph of the model, the route that gave it, and the reason why an earlier route failed."""

    graph_module: GraphModule
    route: Route
    rejected: str | None = None


def capture(
    model: nn.Module | ExportedProgram,
    example_inputs: Sequence[Any] | None = None,
    *,
    dynamic_shapes: Any = None,
) -> Capture:
    """One graph of ``model``, which is not changed.

    Args:
        model: a module, a graph module, or an exported program.
        example_inputs: positional arguments of ``model``. Without them only symbolic tracing is tried.
        dynamic_shapes: as for ``torch.onnx.export``. Sizes get the bounds that the model needs.

    Returns:
        The graph module. Its tensors are the model's own, not copies.

    Raises:
        CaptureError: no route worked, and the message gives the reason of each. Or the model fixes a size
            that must stay open.

    Example:
        >>> capture(nn.Sequential(nn.Conv1d(2, 2, 3, groups=2))).route
        'symbolic_trace'
    """
    if isinstance(model, ExportedProgram):
        open_sizes(model, (), dynamic_shapes)
        return Capture(_unlift(model), "exported program")
    opens = dynamic_shapes is not None and example_inputs is not None
    if isinstance(model, GraphModule) and not opens:  # its graph may fix the sizes
        return Capture(model, "graph module")
    if not isinstance(model, nn.Module):
        raise CaptureError(
            f"expected an nn.Module, GraphModule or ExportedProgram, got {type(model).__name__}"
        )
    routes: list[Route] = ["symbolic_trace"]
    # Export would run lazy modules on fake tensors, and the model would keep these.
    if example_inputs is not None and not any(nn.parameter.is_lazy(p) for p in model.parameters()):
        routes = ["torch.export", "symbolic_trace"]
    reasons: list[str] = []
    for route in routes:
        try:
            if route == "symbolic_trace":
                graph_module = trace(model)
            else:
                graph_module = _export(model, tuple(example_inputs or ()), dynamic_shapes)
        except FxPassesError:  # a size cannot stay open, and the other route would not notice
            raise
        except (Exception, SystemExit) as error:  # any error of a model rules out this route
            reasons.append(f"{route}: {_described(error)}")
            log.debug("%s failed", route, exc_info=True)
            continue
        keep_cuts(graph_module, model)
        return Capture(graph_module, route, reasons[0] if reasons else None)
    hint = "" if example_inputs is not None else "; torch.export needs example inputs: give --input"
    raise CaptureError(f"{type(model).__name__} could not be captured: {'; '.join(reasons)}{hint}")


def _export(model: nn.Module, example_inputs: tuple[Any, ...], dynamic_shapes: Any) -> GraphModule:
    if dynamic_shapes is not None:
        program, _ = export_open(model, example_inputs, dynamic_shapes)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.export(model, example_inputs)
    graph_module = _unlift(program)
    for module in graph_module.modules():
        module.training = model.training
    copy_modes(model, graph_module)
    return graph_module


def _unlift(program: ExportedProgram) -> GraphModule:
    graph_module = program.module(check_guards=False)
    # torch forbids train() and eval() on this module by instance attributes, which a copy would lack.
    for name in ("train", "eval"):
        graph_module.__dict__.pop(name, None)
    return graph_module  # type: ignore[no-any-return]


def _described(error: BaseException) -> str:
    text = one_line(error, 200)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
