"""The way back from one kernel to plain convolutions that hold every repeat of it."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node

from fx_passes import rewrite
from fx_passes.capture import capture, clone_module
from fx_passes.checkpoint import forget_cuts, load_repeated, own_cuts
from fx_passes.expand import expand_block_diagonal, expand_kernel
from fx_passes.shared_conv import SHARED_CLASSES, _SharedKernel
from fx_passes.weights.fold import static_value
from fx_passes.weights.origin import direct_node
from fx_passes.weights.state import State, attribute, storage_key

log = logging.getLogger(__name__)


def unshare_kernels(model: nn.Module | ExportedProgram) -> GraphModule:
    """The way back: plain convolutions that hold every repeat of the kernel.

    Args:
        model: what :func:`share_kernels` returned, or a module that uses the shared classes; not changed.

    Returns:
        A graph module in which each cut parameter has its full shape again, under its old name; only a
        shared convolution whose kernel something else reads, too, stays as it is. What the graph of
        ``torch.export`` computes from a kernel on diagonal blocks stays as well, and a warning says so.

    Example:
        >>> conv = nn.Conv2d(3, 3, 3, groups=3)
        >>> _ = conv.weight.data.copy_(torch.rand(1, 1, 3, 3))
        >>> _ = conv.bias.data.zero_()
        >>> from fx_passes import share_kernels
        >>> plain = unshare_kernels(share_kernels(conv))
        >>> all(torch.equal(plain.state_dict()[k], v) for k, v in conv.state_dict().items())
        True
    """
    graph_module = capture(model).graph_module
    if graph_module is model:
        graph_module = clone_module(graph_module)
    state = State(graph_module)
    ours = set(SHARED_CLASSES.values())
    # A kernel that something else reads as one kernel stays one.
    sites: dict[int, tuple[str, _SharedKernel]] = {}
    for name, module in graph_module.named_modules():
        if not isinstance(module, _SharedKernel):
            continue
        if type(module) not in ours or module._parameters.get("weight") is None:
            log.warning("`%s` stays one kernel: a subclass, or a hook, may compute anything of it", name)
        elif not state.reads.get(storage_key(module.weight)):
            sites[id(module)] = name, module
    _drop_uneven(sites)
    full: dict[str, Tensor] = {}
    for name, module in sites.values():
        full[f"{name}.weight"] = module.expanded_weight()
        if module.bias is not None:
            full[f"{name}.bias"] = module.expanded_bias()  # type: ignore[assignment]
    cut = _expansions(graph_module)
    for node, passed in cut.items():
        name = str(direct_node(passed).target)
        full[name] = _expansion(node, state.tensors[name])
    for name, tensor in full.items():
        if attribute(graph_module, name) is state.tensors[name]:
            rewrite.cut_tensor(graph_module, state.names[storage_key(state.tensors[name])], tensor)
    for name, _ in sites.values():
        rewrite.unshare_module(graph_module, name)
    for node, passed in cut.items():
        node.replace_all_uses_with(passed)
        rewrite.erase_unused(node)
    forget_cuts(graph_module, full.keys())
    for name in own_cuts(graph_module):
        log.warning("`%s` stays one kernel: the graph expands it in a way that is not known", name)
    load_repeated(graph_module)
    graph_module.recompile()
    return graph_module


def _drop_uneven(sites: dict[int, tuple[str, _SharedKernel]]) -> None:
    """Leave out kernels that are tied between convolutions of several numbers of groups: no one tensor
    holds all repeats of both."""
    groups: dict[Any, set[int]] = {}
    for _, module in sites.values():
        groups.setdefault(storage_key(module.weight), set()).add(module.groups)
    for key, (name, module) in list(sites.items()):
        if len(groups[storage_key(module.weight)]) > 1:
            log.warning("`%s` stays one kernel: it is tied to convolutions of other numbers of groups", name)
            del sites[key]


def _expansions(graph_module: GraphModule) -> dict[Node, Node]:
    """The nodes that expand what was cut down, each with the node whose value it expands."""
    cuts, found = own_cuts(graph_module), {}
    for node in graph_module.graph.nodes:
        if node.target not in (torch.ops.aten.expand.default, expand_block_diagonal):
            continue
        passed = node.args[0]
        source = direct_node(passed)
        held = cuts.get(str(source.target)) if source.op == "get_attr" else None
        if held is not None:
            blocks = held.shape[0] > 1 and not held.block_diagonal  # expanded, then reshaped
            found[next(iter(node.users)) if blocks else node] = passed
    return found


def _expansion(node: Node, kernel: Tensor) -> Tensor:
    """The full tensor that ``node`` makes of ``kernel``."""
    if node.target is expand_block_diagonal:
        return expand_block_diagonal(kernel, int(node.args[1]))  # type: ignore[arg-type]
    expand = node if node.target is torch.ops.aten.expand.default else node.args[0]
    assert isinstance(expand, Node)
    groups = expand.args[1][0]  # type: ignore[index]
    return expand_kernel(kernel, static_value(groups))
