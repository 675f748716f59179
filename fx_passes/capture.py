"""nn.Module / GraphModule / ExportedProgram -> one graph module, whichever route works.

Two routes lead from a module to a graph. Symbolic tracing keeps modules, training mode and sizes
open, but sees no values, so most real models stop it. ``torch.export`` sees the example inputs, runs
more models, and is sound by its guards, but fixes the mode and, unless told otherwise, the sizes. After
either, every weight is a ``get_attr`` node, an argument computed from such nodes, or the tensor of a
``call_module`` convolution; lifted parameters, buffers and constants are put back as attributes.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export import ExportedProgram
from torch.fx import GraphModule, Tracer
from torch.fx.graph_module import _assign_attr
from torch.fx.passes.fake_tensor_prop import FakeTensorProp
from torch.nn.utils import parametrizations, parametrize
from torch.overrides import TorchFunctionMode

from fx_passes.errors import CaptureError
from fx_passes.shared_conv import _SharedKernel
from fx_passes.weights.operators import RANDOM
from fx_passes.weights.state import attribute

log = logging.getLogger(__name__)
Route = Literal["graph module", "exported program", "symbolic_trace", "torch.export"]


@dataclass(frozen=True)
class Capture:
    """A graph of the model, the route that gave it, and why the route tried before it did not."""

    graph_module: GraphModule
    route: Route
    rejected: str | None = None


def capture(
    model: nn.Module | ExportedProgram,
    example_inputs: Sequence[Any] | None = None,
    *,
    dynamic_shapes: Any = None,
    prefer: Literal["symbolic_trace", "torch.export"] = "symbolic_trace",
) -> Capture:
    """One graph of ``model``; the model itself is left as it was.

    Args:
        model: a module, a graph module, or an exported program.
        example_inputs: positional arguments of ``model``; without them only symbolic tracing is tried.
        dynamic_shapes: as for ``torch.export.export``.
        prefer: which route to try first where both are possible.

    Returns:
        The graph module, whose tensors are the model's own, not copies.

    Raises:
        CaptureError: no route worked; the message gives the reason of each.

    Example:
        >>> capture(nn.Sequential(nn.Conv1d(2, 2, 3, groups=2))).route
        'symbolic_trace'
    """
    if isinstance(model, ExportedProgram):
        return Capture(_unlift(model), "exported program")
    if isinstance(model, GraphModule):
        return Capture(model, "graph module")
    if not isinstance(model, nn.Module):
        raise CaptureError(
            f"expected an nn.Module, GraphModule or ExportedProgram, got {type(model).__name__}"
        )
    routes: list[Route] = ["symbolic_trace"]
    if example_inputs is not None:
        routes = ["symbolic_trace", "torch.export"]
        if prefer == "torch.export":
            routes.reverse()
    reasons: list[str] = []
    for route in routes:
        try:
            if route == "symbolic_trace":
                graph_module = _trace(model, example_inputs)
            else:
                graph_module = _export(model, tuple(example_inputs or ()), dynamic_shapes)
        except Exception as error:  # whatever a model raises under a tracer means: not by this route
            reasons.append(f"{route}: {_one_line(error)}")
            log.debug("%s failed", route, exc_info=True)
            continue
        return Capture(graph_module, route, reasons[0] if reasons else None)
    hint = "" if example_inputs is not None else "; give example inputs so that torch.export can be tried"
    raise CaptureError(f"{type(model).__name__} could not be captured: {'; '.join(reasons)}{hint}")


class _Tracer(Tracer):
    """Symbolic tracing that shows where weights come from.

    Buffers are read when the graph runs, not baked in when it is traced. Shared convolutions stay modules,
    as torch's own do; parametrised modules are traced through, down to their parameters.
    """

    proxy_buffer_attributes = True

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if isinstance(m, parametrize.ParametrizationList) or parametrize.is_parametrized(m):
            return False
        if type(m).__module__ == parametrizations.__name__:
            return False
        return isinstance(m, _SharedKernel) or super().is_leaf_module(m, module_qualified_name)


class _RefuseRandom(TorchFunctionMode):
    """Tracing would run a random operator without traced inputs once, and keep its numbers for ever."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in RANDOM:
            raise TypeError(f"`{func.__name__}` draws random numbers, which tracing would freeze")
        return func(*args, **(kwargs or {}))


def _trace(model: nn.Module, example_inputs: Sequence[Any] | None) -> GraphModule:
    with _RefuseRandom():
        graph = _Tracer().trace(model)
    traced = GraphModule(model, graph, type(model).__name__)
    _restore_state(traced, model)
    graph_module = copy_graph_module(traced)
    if example_inputs is not None:
        # Fake tensors cost no arithmetic, give every node its shape, and show a trace that cannot run.
        mode = FakeTensorMode(allow_non_fake_inputs=True)
        FakeTensorProp(graph_module, mode).propagate(*example_inputs)
    return graph_module


def _export(model: nn.Module, example_inputs: tuple[Any, ...], dynamic_shapes: Any) -> GraphModule:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(model, example_inputs, dynamic_shapes=dynamic_shapes)
    graph_module = _unlift(program)
    for module in graph_module.modules():
        module.training = model.training
    return graph_module


def _unlift(program: ExportedProgram) -> GraphModule:
    graph_module = program.module(check_guards=False)
    # torch forbids train() and eval() on this module, by attributes that would not survive a copy.
    for name in ("train", "eval"):
        graph_module.__dict__.pop(name, None)
    return graph_module  # type: ignore[no-any-return]


def copy_graph_module(graph_module: GraphModule) -> GraphModule:
    """A graph module of its own, with nodes of the same names and the very same tensors."""
    tensors = [*graph_module.parameters(), *graph_module.buffers()]
    for module in graph_module.modules():
        tensors += [value for value in vars(module).values() if isinstance(value, Tensor)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        copied = copy.deepcopy(graph_module, {id(tensor): tensor for tensor in tensors})
    # torch registers the buffers of a copied root as persistent, whatever they were.
    copied._non_persistent_buffers_set |= graph_module._non_persistent_buffers_set
    return copied


def _restore_state(graph_module: GraphModule, model: nn.Module) -> None:
    """Give the traced module the state_dict of its model: torch keeps only what the graph reads."""
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if attribute(graph_module, name) is None:
            _assign_attr(parameter, graph_module, name)
    persistent: set[str] = set()
    for prefix, module in model.named_modules(remove_duplicate=False):
        for key, buffer in module._buffers.items():
            name = f"{prefix}.{key}" if prefix else key
            if key not in module._non_persistent_buffers_set:
                persistent.add(name)
            if buffer is not None and attribute(graph_module, name) is None:
                _assign_attr(buffer, graph_module, name)
    for prefix, module in graph_module.named_modules(remove_duplicate=False):
        names = {key: f"{prefix}.{key}" if prefix else key for key in module._buffers}
        module._non_persistent_buffers_set |= {k for k, n in names.items() if n not in persistent}


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    text = text if len(text) <= 200 else f"{text[:200]}..."
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
