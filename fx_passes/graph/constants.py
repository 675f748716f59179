"""Constant folding of the subgraph that computes a weight.

The subgraph is run as the model would run it, in program order and with real memory. So in-place operators on
fresh tensors (``new_zeros`` then ``index_put_``) do the same as in the model. A value is constant if nothing
that it is computed from can change. It may not depend on an input of the model (except on its shape or type),
a trainable parameter, a buffer that the model writes to, or a random number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Node
from torch.fx.node import map_arg

from fx_passes.graph.operators import base_name, described_inputs, is_random, read_inputs, reads_shape
from fx_passes.graph.tensors import State, attribute


class NotConstant(Exception):
    """Says why a value is not constant: a stable code, and a reason that names the node."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


@dataclass(frozen=True)
class Computation:
    """The part of a graph that computes one node: its nodes in program order, and the leaves that it starts
    from."""

    nodes: list[Node]
    leaves: list[Node]


def program_slice(
    root: Node, user: Node, state: State, inputs: Callable[[Node], Iterable[Node] | None]
) -> Computation:
    """Everything that the value of ``root`` depends on when ``user`` takes it.

    Nodes that write into a node of the slice before ``user`` runs belong to it as well.

    Args:
        inputs: gives the inputs of a node through which the slice goes back. None makes the node a leaf.
    """
    end = state.position[user]
    seen: set[Node] = set()
    leaves: list[Node] = []
    stack = [root]
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        if (needed := inputs(node)) is None:
            leaves.append(node)
            continue
        stack.extend(needed)
        stack.extend(w for w in state.writers(node) if state.position[w] < end)
    return Computation(sorted(seen, key=state.position.__getitem__), leaves)


def fold(root: Node, user: Node, state: State, *, frozen: bool = False) -> Tensor:
    """The constant value that ``root`` has when ``user`` takes it.

    Args:
        frozen: parameters are constants, too, whether they can be trained or not.

    Raises:
        NotConstant: the value depends on something that can change; the reason names it.
    """
    part = program_slice(root, user, state, _constant_inputs)
    for node in part.nodes:
        _require_constant(node, state, frozen)
    values: dict[Node, Any] = {}
    with torch.no_grad():
        for node in part.nodes:
            values[node] = _run(node, values, state)
    value = values[root]
    if not isinstance(value, Tensor):
        raise NotConstant("not-a-tensor", f"`{root.name}` is a {type(value).__name__}, not a tensor")
    return value


def literal(root: Node, user: Node, state: State) -> bool:
    """Whether ``root`` is computed from nothing that a user could load, train or replace."""
    nodes = program_slice(root, user, state, _constant_inputs).nodes
    names = (str(node.target) for node in nodes if state.read(node) is not None)
    return all(name in state.volatile for name in names)


def quantiser_of(root: Node, user: Node, state: State) -> Node | None:
    """The node that quantises ``root`` or a value that ``root`` is computed from. None if there is none."""
    nodes = program_slice(root, user, state, _constant_inputs).nodes
    return next((node for node in nodes if "quantize" in base_name(node)), None)


def static_value(value: Any) -> Any:
    """``value`` with each node replaced by its number.

    Raises:
        NotConstant: the example inputs do not tell the number of a node.
    """

    def number(node: Node) -> Any:
        known = node.meta.get("val", node)
        if isinstance(known, torch.SymInt) and known.node.maybe_as_int() is not None:
            known = known.node.maybe_as_int()
        if isinstance(known, int | float | bool | torch.Size) and not isinstance(known, torch.SymInt):
            return known
        raise NotConstant(
            "dynamic-size",
            f"`{node.name}` is computed from the shape or the type of an input; "
            "give example inputs, or make it static",
        )

    return map_arg(value, number)


def _constant_inputs(node: Node) -> Iterable[Node] | None:
    if node.op in ("get_attr", "placeholder"):
        return None
    return read_inputs(node)


def _require_constant(node: Node, state: State, frozen: bool) -> None:
    if node.op == "placeholder":
        raise NotConstant("runtime", f"it depends on the input `{node.target}`, not only on its shape")
    if node.op == "call_module":
        raise NotConstant("module", f"it is computed by the module `{node.target}`")
    if node.op == "get_attr":
        _require_constant_tensor(node, state, frozen)
    elif is_random(node):
        raise NotConstant("random", f"`{node.name}` draws random numbers")


def _require_constant_tensor(node: Node, state: State, frozen: bool) -> None:
    tensor = state.read(node)
    if tensor is None:
        return
    if isinstance(tensor, nn.Parameter) and tensor.requires_grad and not frozen:
        raise NotConstant("trainable", f"it is computed from the trainable parameter `{node.target}`")
    if tensor.is_meta:
        raise NotConstant("meta", f"`{node.target}` is on the meta device and has no values")
    if writers := state.writers(node):
        raise NotConstant("mutated", f"`{node.target}` is written to by `{writers[0].name}`")


def _run(node: Node, values: dict[Node, Any], state: State) -> Any:
    if node.op == "get_attr":
        value = attribute(state.graph_module, str(node.target))
        return value.detach() if isinstance(value, Tensor) else value
    described = [n for n in described_inputs(node) if n not in values]
    known = {n: stand_in(n, state, reads_shape(node)) for n in described}
    if None in known.values():
        return static_value(node)
    args, kwargs = map_arg((node.args, node.kwargs), lambda n: known[n] if n in known else _value(n, values))
    target = node.target
    call = getattr(args[0], target) if isinstance(target, str) else target
    return call(*args[1:], **kwargs) if isinstance(target, str) else call(*args, **kwargs)


def _value(node: Node, values: dict[Node, Any]) -> Any:
    return values[node] if node in values else static_value(node)


def stand_in(node: Node, state: State, shaped: bool = True) -> Tensor | None:
    """A tensor of the type and shape of ``node``, without memory, for operators that do not look at elements.

    Args:
        shaped: the operator also looks at the shape. Otherwise open sizes become 1.

    Returns:
        The tensor. None: the type is not known, or the operator looks at a size that is open.
    """
    like = node.meta.get("val", state.read(node))
    if not isinstance(like, Tensor) or nn.parameter.is_lazy(like):
        return None
    if shaped and not all(isinstance(size, int) for size in like.shape):
        return None
    shape = [size if isinstance(size, int) else 1 for size in like.shape]
    return torch.empty((), dtype=like.dtype, device=like.device).expand(shape)


__all__ = ["Computation", "NotConstant", "fold", "program_slice", "stand_in", "static_value"]
