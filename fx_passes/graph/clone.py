"""Clones a module around the same parameters and buffers."""

from __future__ import annotations

import copy
import warnings
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.fx import GraphModule

from fx_passes.graph.torch_internals import modules_held, put_graph

T = TypeVar("T")


def clone_module(module: nn.Module, *, compiled: bool = True, memo: dict[int, Any] | None = None) -> Any:
    """A clone of ``module`` and its children that holds the very same parameters and buffers.

    A graph is copied. Its nodes keep their names. Other attributes are the same objects, with two exceptions:
    containers are copied one level deep, and plain tensors are copied, because code may write to them. This
    is faster than ``deepcopy``, and it works for models that ``deepcopy`` cannot copy.

    Args:
        compiled: False leaves the ``recompile()`` of a graph module to the caller. It takes as long as the
            rest.
        memo: the clones made so far, by the id of the original.
    """
    memo = {} if memo is None else memo
    if id(module) in memo:
        return memo[id(module)]
    clone = memo[id(module)] = module.__new__(type(module))
    for key, value in vars(module).items():
        if isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
            value = value.detach().clone()
        clone.__dict__[key] = copy.copy(value) if isinstance(value, dict | set) else value
    for name, child in modules_held(module).items():
        if child is not None:
            modules_held(clone)[name] = clone_module(child, memo=memo)
    if isinstance(clone, GraphModule):
        put_graph(clone, _deep(clone.graph))
        if compiled:
            clone.recompile()
    return clone


def copy_module(graph_module: GraphModule) -> GraphModule:
    """A copy with tensors of its own: what it writes stays in it."""
    return _deep(graph_module)


def _deep(value: T) -> T:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch copies a structure in a deprecated way
        return copy.deepcopy(value)
