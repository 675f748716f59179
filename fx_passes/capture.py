"""nn.Module / GraphModule / ExportedProgram -> one graph module, whichever route works.

Two routes lead from a module to a graph. ``torch.export`` runs the model on the example inputs and guards
what it assumes, so it is tried first wherever there are inputs; it fixes the mode and, unless told
otherwise, the sizes. Symbolic tracing needs no inputs and keeps modules, training mode and sizes open, but
sees no values. After either, every weight is a ``get_attr`` node, an argument computed from such nodes,
or the tensor of a ``call_module`` convolution; lifted parameters, buffers and constants are attributes again.
"""

from __future__ import annotations

import copy
import inspect
import logging
import random
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node, Proxy, Tracer
from torch.nn.utils import parametrizations, parametrize
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from fx_passes.checkpoint import keep_cuts
from fx_passes.errors import CaptureError, FxPassesError, one_line
from fx_passes.open_sizes import export_open, open_sizes
from fx_passes.restore import restore_order, restore_state
from fx_passes.shared_conv import _SharedKernel
from fx_passes.weights.operators import RANDOM

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
) -> Capture:
    """One graph of ``model``; the model itself is left as it was.

    Args:
        model: a module, a graph module, or an exported program.
        example_inputs: positional arguments of ``model``; without them only symbolic tracing is tried.
        dynamic_shapes: as for ``torch.onnx.export``; sizes get the bounds that the model needs.

    Returns:
        The graph module, whose tensors are the model's own, not copies.

    Raises:
        CaptureError: no route worked; the message gives the reason of each. Or the model fixes a size that
            is to stay open.

    Example:
        >>> capture(nn.Sequential(nn.Conv1d(2, 2, 3, groups=2))).route
        'symbolic_trace'
    """
    if isinstance(model, ExportedProgram):
        open_sizes(model, (), dynamic_shapes)
        return Capture(_unlift(model), "exported program")
    opens = dynamic_shapes is not None and example_inputs is not None
    if isinstance(model, GraphModule) and not opens:  # the sizes in its graph may be fixed ones
        return Capture(model, "graph module")
    if not isinstance(model, nn.Module):
        raise CaptureError(
            f"expected an nn.Module, GraphModule or ExportedProgram, got {type(model).__name__}"
        )
    routes: list[Route] = ["symbolic_trace"]
    # Export would run lazy modules on fake tensors, and leave the model with those.
    if example_inputs is not None and not any(nn.parameter.is_lazy(p) for p in model.parameters()):
        routes = ["torch.export", "symbolic_trace"]
    reasons: list[str] = []
    for route in routes:
        try:
            if route == "symbolic_trace":
                graph_module = _trace(model)
            else:
                graph_module = _export(model, tuple(example_inputs or ()), dynamic_shapes)
        except FxPassesError:  # a size cannot stay open: another route would not see it
            raise
        except (Exception, SystemExit) as error:  # whatever a model raises means: not by this route
            reasons.append(f"{route}: {_described(error)}")
            log.debug("%s failed", route, exc_info=True)
            continue
        keep_cuts(graph_module, model)
        return Capture(graph_module, route, reasons[0] if reasons else None)
    hint = "" if example_inputs is not None else "; give example inputs so that torch.export can be tried"
    raise CaptureError(f"{type(model).__name__} could not be captured: {'; '.join(reasons)}{hint}")


class _Tracer(Tracer):
    """Symbolic tracing that shows where weights come from, and stops at what a graph cannot hold.

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

    def create_node(self, *args: Any, **kwargs: Any) -> Node:
        if _modes() != self.modes:
            raise TypeError("the model switches gradients or autocast, which tracing would drop")
        return super().create_node(*args, **kwargs)

    def trace(self, root: Any, concrete_args: dict[str, Any] | None = None) -> torch.fx.Graph:
        self.modes = _modes()
        before = random.getstate(), torch.random.get_rng_state()
        graph = super().trace(root, concrete_args)
        if random.getstate() != before[0] or not torch.equal(torch.random.get_rng_state(), before[1]):
            raise TypeError("the model draws random numbers, which tracing would freeze")
        return graph


def _modes() -> tuple[bool, ...]:
    return torch.is_grad_enabled(), torch.is_autocast_enabled("cpu"), torch.is_autocast_enabled("cuda")


class _RefuseRandom(TorchFunctionMode):
    """Tracing would run a random operator without traced inputs once, and keep its numbers for ever."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in RANDOM:
            leaves = pytree.tree_leaves((args, kwargs))
            if not any(isinstance(leaf, Proxy) for leaf in leaves):
                raise TypeError(f"`{func.__name__}` draws random numbers, which tracing would freeze")
        return func(*args, **kwargs)


def _trace(model: nn.Module) -> GraphModule:
    if model._forward_hooks or model._forward_pre_hooks:
        raise TypeError("the model has forward hooks, which tracing would drop")
    # The model's code runs while it is traced: on a clone, so that what it writes is not the user's.
    clone = clone_module(model)
    parameters = list(inspect.signature(model.forward).parameters.values())
    defaults = {p.name: p.default for p in parameters if p.default is None}
    with _RefuseRandom():
        graph = _Tracer().trace(clone, defaults or None)
    for node in graph.nodes:
        # What `from __future__ import annotations` leaves of a type; nothing with it can be pickled.
        node.type = None if isinstance(node.type, str) else node.type
    graph_module = GraphModule(clone, graph, type(model).__name__)
    restore_state(graph_module, model)
    restore_order(graph_module, model)
    _copy_modes(model, graph_module)
    return graph_module


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
    _copy_modes(model, graph_module)
    return graph_module


def _unlift(program: ExportedProgram) -> GraphModule:
    graph_module = program.module(check_guards=False)
    # torch forbids train() and eval() on this module, by attributes that a copy would not have.
    for name in ("train", "eval"):
        graph_module.__dict__.pop(name, None)
    return graph_module  # type: ignore[no-any-return]


def _copy_modes(model: nn.Module, graph_module: GraphModule) -> None:
    modes = {name: module.training for name, module in model.named_modules()}
    for name, module in graph_module.named_modules():
        module.training = modes.get(name, module.training)


def clone_module(module: nn.Module, *, compiled: bool = True, memo: dict[int, Any] | None = None) -> Any:
    """Modules of their own around the very same parameters and buffers; graphs with nodes of the same names.

    Other attributes are the same objects, but for containers (copied one level deep) and plain tensors
    (copied, for code may write to them). Faster than ``deepcopy``, and works where that does not.

    Args:
        compiled: False leaves the ``recompile()`` of a graph module, which takes as long as the rest, to
            the caller.
    """
    memo = {} if memo is None else memo
    if id(module) in memo:
        return memo[id(module)]
    clone = memo[id(module)] = module.__new__(type(module))
    for key, value in vars(module).items():
        if isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
            value = value.detach().clone()
        clone.__dict__[key] = copy.copy(value) if isinstance(value, dict | set) else value
    for name, child in module._modules.items():
        if child is not None:
            clone._modules[name] = clone_module(child, memo=memo)
    if isinstance(clone, GraphModule):
        clone._graph = copy.deepcopy(clone._graph)
        clone._graph.owning_module = clone
        if compiled:
            clone.recompile()
    return clone


def _described(error: BaseException) -> str:
    text = one_line(error, 200)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
