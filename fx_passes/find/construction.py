"""Proves that a weight repeats one kernel by its construction, whatever its values are.

The layout operators between a source and the weight (``expand``, ``repeat``, ``reshape``, ``flip``,
``index_put_`` into zeros, ...) only move elements. Here they are run on a tensor that holds numbers instead
of values: each element of the source has its own number. The result shows the source element of every element
of the weight. Two elements with the same number are equal for any values of the source, whether they are
trained or given at run time. The number 0 stands for the constant zero.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.fx.node import map_arg

from fx_passes.graph.constants import NotConstant, fold, program_slice, stand_in, static_value
from fx_passes.graph.operators import (
    CONVERSIONS,
    LAYOUT,
    SCATTER,
    SHARED_EXPANSIONS,
    TRANSPARENT,
    ZEROS,
    base_name,
    described_inputs,
    first_argument,
    is_operator,
    reads_shape,
    written_nodes,
)
from fx_passes.graph.tensors import State
from fx_passes.kernels.block_diagonal import find_diagonal_blocks
from fx_passes.kernels.repeats import Repeats, find_repeats


@dataclass(frozen=True)
class Construction:
    """A weight that repeats one kernel by construction.

    Args:
        groups: how many groups (or diagonal blocks) repeat the kernel.
        shape: the shape of the kernel, which is one group's block of the weight.
        block_diagonal: the blocks lie on the diagonal of a dense weight.
        source: the node that holds the elements of the kernel in their order, in some shape. None: no node of
            the graph holds them, so the kernel must be sliced out of the weight.
        source_shape: the shape that ``source`` holds them in.
        expanded: there is one ``expand`` between source and weight, and nothing that copies.
    """

    groups: int
    shape: tuple[int, ...]
    block_diagonal: bool
    source: Node | None
    source_shape: tuple[int, ...] | None
    expanded: bool


# Then there is no proof: a size is unknown, or an operator refuses integers.
_NO_PROOF = (NotConstant, RuntimeError, TypeError, ValueError, IndexError, KeyError)


def find_construction(weight: Node, user: Node, groups: int, state: State) -> Construction | None:
    """How ``weight``, as ``user`` takes it, repeats one kernel ``groups`` times. None if it does not.

    For groups = 1: how it repeats one kernel in diagonal blocks.
    """
    try:
        numbers, nodes = _number_elements(weight, user, state)
    except _NO_PROOF:
        return None
    found = _repeated_kernel(numbers[weight], groups)
    if found is None:
        return None
    count, kernel, block_diagonal = found
    source = _node_holding(kernel, numbers, nodes, state)
    expanded = source is not None and _only_expands(source, weight)
    source_shape = None if source is None else tuple(numbers[source].shape)
    shape = tuple(kernel.shape)
    return Construction(count, shape, block_diagonal, source, source_shape, expanded)


def layout_shape(node: Node, user: Node, state: State) -> tuple[int, ...] | None:
    """The shape of a node that layout operators make, found without example inputs. None if that fails."""
    try:
        numbers, _ = _number_elements(node, user, state)
    except _NO_PROOF:
        return None
    return tuple(numbers[node].shape)


def _repeated_kernel(numbers: Tensor, groups: int) -> tuple[int, Tensor, bool] | None:
    if groups > 1:
        repeats = find_repeats(numbers, groups)
        return (groups, repeats.kernel, False) if isinstance(repeats, Repeats) else None
    blocks = find_diagonal_blocks(numbers)
    if blocks is None or not isinstance(blocks[1], Repeats):
        return None
    return blocks[0], blocks[1].kernel, True


def _data_inputs(node: Node) -> Iterable[Node] | None:
    """The inputs whose elements end up in ``node``. None if ``node`` computes new elements."""
    name = base_name(node)
    if not is_operator(node):
        return None
    if name in ZEROS:
        return ()
    if name in SCATTER:
        return [n for n in (node.args[0], node.args[-1]) if isinstance(n, Node)]
    if name in LAYOUT:
        found: list[Node] = []
        map_arg(first_argument(node), found.append)
        return found
    return None


def _number_elements(weight: Node, user: Node, state: State) -> tuple[dict[Node, Any], list[Node]]:
    part = program_slice(weight, user, state, _data_inputs)
    numbers: dict[Node, Any] = {}
    free = 1
    leaves = set(part.leaves)
    for node in part.nodes:
        if written_nodes(node) and base_name(node) not in SCATTER:
            raise NotConstant("mutated", f"`{node.name}` computes in place")
        if node in leaves:
            shape = _shape(node, user, state)
            size = int(torch.Size(shape).numel())
            numbers[node] = torch.arange(free, free + size).reshape(shape)
            free += size
        else:
            numbers[node] = _apply(node, user, numbers, state)
    return numbers, part.nodes


def _shape(node: Node, user: Node, state: State) -> tuple[int, ...]:
    tensor = state.read(node)
    if tensor is None:
        tensor = node.meta.get("val")
    if not isinstance(tensor, Tensor):
        tensor = fold(node, user, state)
    if not all(isinstance(size, int) for size in tensor.shape):
        raise NotConstant("dynamic-size", f"the shape of `{node.name}` is not known")
    return tuple(tensor.shape)


def _apply(node: Node, user: Node, numbers: dict[Node, Any], state: State) -> Any:
    """Run a layout operator on element numbers instead of values."""
    name = base_name(node)
    if name in TRANSPARENT:
        return numbers[first_argument(node)]
    if name in ZEROS:
        return torch.zeros(_shape(node, user, state), dtype=torch.int64)
    if name in SCATTER:
        _require_moves(node)

    described = described_inputs(node)

    def value(argument: Node) -> Any:
        if argument in numbers:
            return numbers[argument]
        if argument in described:
            return stand_in(argument, state, reads_shape(node))
        known = argument.meta.get("val")
        return fold(argument, node, state) if isinstance(known, Tensor) else static_value(argument)

    args, kwargs = map_arg((node.args, node.kwargs), value)
    target = node.target
    if isinstance(target, str):
        return getattr(args[0], target)(*args[1:], **kwargs)
    return target(*args, **kwargs)  # type: ignore[operator]


def _require_moves(node: Node) -> None:
    """Check that a scatter only moves elements: it writes a tensor of the same dtype, and does not add."""
    target, source = node.args[0], node.args[-1]
    if base_name(node).startswith("index_put") and len(node.args) == 4:
        source = node.args[2] if node.args[3] is False else None
    if "accumulate" in node.kwargs or not isinstance(target, Node) or not isinstance(source, Node):
        raise NotConstant("scatter", f"`{node.name}` does not only move elements")
    dtypes = {getattr(n.meta.get("val"), "dtype", n) for n in (target, source)}
    if len(dtypes) > 1:
        raise NotConstant("scatter", f"`{node.name}` converts what it writes")


def _converts(node: Node) -> bool:
    """Whether ``node`` may round the elements that pass through it, or cut them off from their gradient."""
    if base_name(node) not in CONVERSIONS:
        return False
    before = first_argument(node)
    after = node.meta.get("val")
    before = before.meta.get("val") if isinstance(before, Node) else None
    if not isinstance(after, Tensor) or not isinstance(before, Tensor):
        return True
    if base_name(node).startswith("detach"):
        return True
    return after.dtype != before.dtype or after.device != before.device


def _node_holding(kernel: Tensor, numbers: dict[Node, Any], nodes: list[Node], state: State) -> Node | None:
    """The last node that holds the elements of the kernel in their order, and that nothing writes to.

    Sharing replaces the nodes between it and the weight. So it may not come before a conversion.
    """
    wanted = kernel.reshape(-1)
    for node in reversed(nodes):
        held = numbers[node]
        same_size = isinstance(held, Tensor) and held.numel() == wanted.numel()
        if same_size and torch.equal(held.reshape(-1), wanted) and not state.writers(node):
            return node
        if _converts(node):
            return None
    return None


def _only_expands(source: Node, weight: Node) -> bool:
    """Whether there is exactly one ``expand`` between ``source`` and ``weight``, and otherwise only views."""
    expands, node = 0, weight
    while node is not source:
        name = base_name(node)
        if name in ("expand", "expand_as", "broadcast_to", *SHARED_EXPANSIONS):
            expands += 1
        elif name not in ("view", "reshape", "unsqueeze", "squeeze"):
            return False
        before = first_argument(node)
        if not isinstance(before, Node):
            return False
        node = before
    return expands == 1


__all__ = ["Construction", "find_construction"]
