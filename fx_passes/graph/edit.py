"""Edits of a graph module. No other file edits graphs, except the inlining in ``capture/inference.py``.

Each function changes the given graph module in place. It keeps the names of the nodes that stay. A new node
gets the ``meta`` of the node whose value it takes over.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node

from fx_passes.graph.operators import ancestors, base_name, written_nodes
from fx_passes.graph.tensors import attribute
from fx_passes.graph.torch_internals import buffers_held, parameters_held
from fx_passes.kernels.expand import expand_block_diagonal

Role = Literal["weight", "bias"]


def cut_tensor(graph_module: GraphModule, names: Sequence[str], values: Tensor) -> None:
    """Replace a tensor by a copy of ``values``, as one object under all its names.

    A parameter stays a parameter with its ``requires_grad``, and a buffer stays a buffer.
    """
    tensor = attribute(graph_module, names[0])
    assert isinstance(tensor, Tensor)
    cut = values.detach().clone(memory_format=torch.contiguous_format)
    if isinstance(tensor, nn.Parameter):
        cut = nn.Parameter(cut, requires_grad=tensor.requires_grad)
        cut.__dict__.update(vars(tensor))
    for name in names:
        path, _, leaf = name.rpartition(".")
        owner = graph_module.get_submodule(path)
        slots: dict[str, Any] = vars(owner)
        slots = next((s for s in (parameters_held(owner), buffers_held(owner)) if leaf in s), slots)
        slots[leaf] = cut


def add_buffer(graph_module: GraphModule, name: str, tensor: Tensor, before: Node) -> Node:
    """Add a buffer to the root module, outside the state_dict, and return the node that reads it."""
    free = name = name.replace(".", "_").replace("/", "_").replace("#", "_")
    count = 0
    while hasattr(graph_module, free):
        count += 1
        free = f"{name}_{count}"
    graph_module.register_buffer(free, tensor, persistent=False)
    with graph_module.graph.inserting_before(before):
        node = graph_module.graph.get_attr(free)
    node.meta = _carried(before.meta)
    return node


def first_block(conv: Node, weight: Node, shape: tuple[int, ...]) -> Node:
    """Slice the first ``shape`` elements of ``weight`` along its first two dimensions, directly before
    ``conv``."""
    block = weight
    with conv.graph.inserting_before(conv):
        for dim in (0, 1):
            arguments = (block, dim, 0, shape[dim])
            block = conv.graph.call_function(torch.ops.aten.slice.Tensor, arguments)
            block.meta = _carried(weight.meta)
    return block


def reshaped(conv: Node, source: Node, shape: tuple[int, ...]) -> Node:
    """Reshape ``source`` directly before ``conv``."""
    with conv.graph.inserting_before(conv):
        node = conv.graph.call_function(torch.ops.aten.reshape.default, (source, list(shape)))
    node.meta = _carried(source.meta)
    return node


def expand_argument(
    conv: Node,
    role: Role,
    kernel: Node,
    shape: tuple[int, ...],
    groups: Any,
    *,
    block_diagonal: bool,
    meta: dict[str, Any],
) -> Node:
    """Let ``conv`` take the expansion of ``kernel`` as its weight or bias.

    Args:
        shape: the shape of the kernel.
        groups: how often it is repeated, or the node that computes that.
        block_diagonal: expand to diagonal blocks instead of dimension 0.
        meta: the ``meta`` of the node that held the full tensor.
    """
    with conv.graph.inserting_before(conv):
        if block_diagonal:
            expanded = conv.graph.call_function(expand_block_diagonal, (kernel, groups, shape))
        else:
            expanded = _expand(conv.graph, kernel, shape, groups, meta)
    expanded.meta = dict(meta)
    if role in conv.kwargs:
        conv.update_kwarg(role, expanded)
    else:
        conv.update_arg({"weight": 1, "bias": 2}[role], expanded)
    return expanded


def _expand(graph: Graph, kernel: Node, shape: tuple[int, ...], groups: Any, meta: dict[str, Any]) -> Node:
    """``expand.expand_kernel`` as ATen operators. The result is a view if a group has one row."""
    aten, rows = torch.ops.aten, shape[0]
    sizes = [groups, *shape[1:]] if rows == 1 else [groups, *shape]
    expanded = graph.call_function(aten.expand.default, (kernel, sizes))
    if rows > 1:
        expanded.meta = _carried(meta)
        expanded = graph.call_function(aten.reshape.default, (expanded, [-1, *shape[1:]]))
    return expanded


def cut_value(node: Node, shape: tuple[int, ...]) -> None:
    """Update the example value of a node for a tensor that has been cut to ``shape``."""
    value = node.meta.get("val")
    if isinstance(value, Tensor):
        node.meta["val"] = value[tuple(slice(size) for size in shape)]
    node.meta.pop("tensor_meta", None)


def uncut_value(node: Node, shape: tuple[int, ...]) -> None:
    """The inverse of :func:`cut_value`: the tensor has its full ``shape`` again."""
    value = node.meta.get("val")
    if isinstance(value, Tensor) and tuple(value.shape) != shape:
        node.meta["val"] = value.new_empty(shape)
    node.meta.pop("tensor_meta", None)


def insert_module(graph_module: GraphModule, target: str, conv: Node, source: Node, end: Node) -> Node:
    """Compute ``end`` from ``source`` by the submodule ``target``, which replaces ``conv`` and its
    surroundings."""
    with conv.graph.inserting_before(conv):
        node = conv.graph.call_module(target, (source,))
    node.meta = dict(end.meta)
    end.replace_all_uses_with(node)
    erase_unused(end)
    return node


def insert_merged(target: str, conv: Node, sources: Sequence[Node], ends: Sequence[Node]) -> list[Node]:
    """Compute each of ``ends`` by one call of the submodule ``target`` on all ``sources``, before ``conv``.

    The nodes that the sources are computed from move in front of ``conv``. None of them may depend on the
    ends.
    """
    needed = ancestors(sources)
    late = False
    for node in list(conv.graph.nodes):
        late |= node is conv
        if late and node in needed:
            conv.prepend(node)
    graph, aten, size = conv.graph, torch.ops.aten, sources[0].meta["val"].shape[0]
    with graph.inserting_before(conv):
        if not isinstance(size, int):
            open_size = graph.call_function(aten.sym_size.int, (sources[0], 0))
            open_size.meta = {**_carried(sources[0].meta), "val": size}
            size = open_size
        together = graph.call_function(aten.cat.default, (list(sources), 0))
        called = graph.call_module(target, (together,))
        split = graph.call_function(aten.split_with_sizes.default, (called, [size] * len(ends), 0))
        parts = [graph.call_function(operator.getitem, (split, index)) for index in range(len(ends))]
    for node, value in ((together, sources[0]), (called, ends[0])):
        node.meta = _carried(value.meta)
        node.meta["val"] = value.meta["val"].repeat(len(sources), *[1] * (value.meta["val"].ndim - 1))
    split.meta = _carried(ends[0].meta)
    for part, end in zip(parts, ends, strict=True):
        part.meta = dict(end.meta)
        end.replace_all_uses_with(part)
        erase_unused(end)
    return parts


def erase_unused(root: Node) -> None:
    """Remove ``root`` and everything that only it needed: operators, writes into them, and assertions on
    them."""
    graph, stack = root.graph, [root]
    erased: set[Node] = set()
    while stack:
        node = stack.pop()
        if node in erased or node.op in ("placeholder", "output"):
            continue
        idle = [user for user in node.users if _only_touches(user, node)]
        if len(idle) < len(node.users):
            continue
        for gone in (*idle, node):
            stack.extend(gone.all_input_nodes)
            graph.erase_node(gone)
            erased.add(gone)


def _only_touches(user: Node, node: Node) -> bool:
    """Whether ``user`` has no effect except on ``node``: a check, a write into it, or an unused result."""
    if user.users or user.op == "output":
        return False
    checks = base_name(user) == "_assert_tensor_metadata"
    return checks or written_nodes(user) == [node] or not user.is_impure()


def _carried(meta: dict[str, Any]) -> dict[str, Any]:
    """The part of ``meta`` that a node of another shape may take over: all but the example value."""
    return {key: value for key, value in meta.items() if key not in ("val", "tensor_meta")}
