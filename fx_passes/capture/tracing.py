"""Symbolic tracing that keeps the state of a model, and fails if a graph cannot hold something."""

from __future__ import annotations

import inspect
import random
from typing import Any

import torch
from torch import nn
from torch.fx import GraphModule, Node, Proxy, Tracer
from torch.nn.utils import parametrizations, parametrize
from torch.overrides import TorchFunctionMode

from fx_passes.graph.clone import clone_module
from fx_passes.graph.operators import RANDOM
from fx_passes.graph.restore import restore_order, restore_state
from fx_passes.graph.torch_internals import forward_hooks, forward_pre_hooks, pytree
from fx_passes.train.shared_conv import SharedKernelConv


def trace(model: nn.Module) -> GraphModule:
    """A symbolically traced graph of ``model``, with the model's own tensors, state_dict and modes.

    Raises:
        TypeError: the graph would lose something: hooks, random numbers, or a mode of gradients or autocast.
    """
    if forward_hooks(model) or forward_pre_hooks(model):
        raise TypeError("the model has forward hooks, which tracing would drop")
    # Tracing runs the model's code. It runs on a clone, so that it does not write to the user's model.
    clone = clone_module(model)
    parameters = list(inspect.signature(model.forward).parameters.values())
    defaults = {p.name: p.default for p in parameters if p.default is None}
    with _RefuseRandom():
        graph = _Tracer().trace(clone, defaults or None)
    for node in graph.nodes:
        # `from __future__ import annotations` makes types strings, and a graph with these cannot be pickled.
        node.type = None if isinstance(node.type, str) else node.type
    graph_module = GraphModule(clone, graph, type(model).__name__)
    restore_state(graph_module, model)
    restore_order(graph_module, model)
    copy_modes(model, graph_module)
    return graph_module


def copy_modes(model: nn.Module, graph_module: GraphModule) -> None:
    """Put each module of ``graph_module`` in the training or evaluation mode that it has in ``model``."""
    modes = {name: module.training for name, module in model.named_modules()}
    for name, module in graph_module.named_modules():
        module.training = modes.get(name, module.training)


class _Tracer(Tracer):
    """Symbolic tracing that shows the source of weights, and fails if a graph cannot hold something.

    Buffers are read when the graph runs, not when it is traced. Shared convolutions stay modules, as torch's
    own do. Parametrised modules are traced down to their parameters.
    """

    proxy_buffer_attributes = True

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if isinstance(m, parametrize.ParametrizationList) or parametrize.is_parametrized(m):
            return False
        if type(m).__module__ == parametrizations.__name__:
            return False
        return isinstance(m, SharedKernelConv) or super().is_leaf_module(m, module_qualified_name)

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
    """Refuses random operators without traced inputs. Tracing would run them once, and keep their numbers for
    ever."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in RANDOM:
            leaves = pytree.tree_leaves((args, kwargs))
            if not any(isinstance(leaf, Proxy) for leaf in leaves):
                raise TypeError(f"`{func.__name__}` draws random numbers, which tracing would freeze")
        return func(*args, **kwargs)
