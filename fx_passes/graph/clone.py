"""A module of its own around the same parameters and buffers."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn
from torch.fx import GraphModule

from fx_passes.graph.torch_internals import modules_held, put_graph


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
    for name, child in modules_held(module).items():
        if child is not None:
            modules_held(clone)[name] = clone_module(child, memo=memo)
    if isinstance(clone, GraphModule):
        put_graph(clone, copy.deepcopy(clone.graph))
        if compiled:
            clone.recompile()
    return clone
