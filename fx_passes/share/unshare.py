"""The way back from one kernel to plain convolutions that hold every repeat of it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node
from torch.fx.passes.infra.pass_base import PassBase, PassResult

from fx_passes.capture.routes import capture
from fx_passes.find.origin import direct_node, way_to_source
from fx_passes.find.ties import sees_no_shape
from fx_passes.graph import edit
from fx_passes.graph.clone import clone_module
from fx_passes.graph.constants import NotConstant, static_value
from fx_passes.graph.operators import transparent_input
from fx_passes.graph.tensors import State, storage_key
from fx_passes.graph.torch_internals import parameters_held
from fx_passes.kernels.expand import expand_block_diagonal, expand_kernel
from fx_passes.share.replace_module import unshare_module
from fx_passes.train.checkpoint import Cut, cuts_of, forget_cuts, load_repeated, own_cuts
from fx_passes.train.shared_conv import SHARED_CLASSES, SharedKernelConv

log = logging.getLogger(__name__)


def unshare_kernels(model: nn.Module | ExportedProgram) -> GraphModule:
    """The way back: plain convolutions that hold every repeat of the kernel.

    Args:
        model: what :func:`share_kernels` returned, or a module that uses the shared classes; not changed.

    Returns:
        A graph module in which each cut parameter has its full shape again, under all its names, whatever
        reads it: modules, and calls in the graph. A kernel stays one kernel, and a warning says why, where
        something reads it as one, or in a way that is not known (what ``torch.export`` makes of a kernel on
        diagonal blocks).

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
    _unshare_in_place(graph_module)
    return graph_module


class UnshareKernels(PassBase):
    """:func:`unshare_kernels` as a ``torch.fx`` pass, for a ``PassManager``.

    The result is a graph module of its own; the one given is left as it was.

    Example:
        >>> conv = nn.Conv2d(3, 3, 3, groups=3)
        >>> _ = conv.weight.data.copy_(torch.rand(1, 1, 3, 3))
        >>> from fx_passes import share_kernels
        >>> result = UnshareKernels()(share_kernels(conv))
        >>> result.modified, result.graph_module.weight.shape
        (True, torch.Size([3, 1, 3, 3]))
    """

    def call(self, graph_module: GraphModule) -> PassResult:
        plain = clone_module(graph_module)
        return PassResult(plain, True) if _unshare_in_place(plain) else PassResult(graph_module, False)


def _unshare_in_place(graph_module: GraphModule) -> bool:
    """Whether anything was held once."""
    state = State(graph_module)
    held = _held_once(graph_module, state)
    expansions = _expansions(graph_module, held, state)
    modules = {n: m for n, m in graph_module.named_modules() if isinstance(m, SharedKernelConv)}
    stays, kept = _what_stays(graph_module, held, expansions, modules, state)
    for name, reason in sorted({**{held[key].names[0]: stays[key] for key in stays}, **kept}.items()):
        log.warning("`%s` stays one kernel: %s", name, reason)
    for key, one in held.items():
        if key not in stays:
            edit.cut_tensor(graph_module, one.names, one.full())
            forget_cuts(graph_module, one.names)
    for name in modules.keys() - kept.keys():
        unshare_module(graph_module, name)
    for node, key in expansions.items():
        if key not in stays:
            _read_whole(node, held[key])
    load_repeated(graph_module)
    graph_module.recompile()
    return bool(held.keys() - stays.keys() or modules.keys() - kept.keys())


@dataclass(frozen=True)
class _Held:
    """A tensor that is held once for all groups: under all its names, and from what it was cut."""

    names: list[str]
    tensor: Tensor
    cuts: set[Cut]

    @property
    def cut(self) -> Cut:
        return next(iter(self.cuts))

    def full(self) -> Tensor:
        """What it was cut from."""
        expand = expand_block_diagonal if self.cut.block_diagonal else expand_kernel
        return expand(self.tensor, self.cut.groups)


def _held_once(graph_module: GraphModule, state: State) -> dict[int, _Held]:
    """The tensors that were cut down, by their storage."""
    held: dict[int, _Held] = {}
    for name, cut in cuts_of(graph_module).items():
        if cut.full_shape != cut.shape:
            tensor = state.tensors[name]
            key = storage_key(tensor)
            held.setdefault(key, _Held(state.names[key], tensor, set())).cuts.add(cut)
    return held


def _what_stays(
    graph_module: GraphModule,
    held: Mapping[int, _Held],
    expansions: Mapping[Node, int],
    modules: Mapping[str, SharedKernelConv],
    state: State,
) -> tuple[dict[int, str], dict[str, str]]:
    """Why a tensor stays as it is, by its storage, and why a module does, by its name.

    A module and its tensors stay together.
    """
    inner = [m for m in graph_module.modules() if isinstance(m, GraphModule) and m is not graph_module]
    apart = {name for module in inner for name in own_cuts(module)}
    stays = {}
    for key, one in held.items():
        if reason := _reason(one, [n for n in state.reads.get(key, ()) if not _only_expanded(n, expansions)]):
            stays[key] = reason
        elif any(name.rpartition(".")[2] in apart for name in one.names) and inner:
            stays[key] = "a graph inside this one reads it"
    kept: dict[str, str] = {}
    before = -1
    while before < len(kept) + len(stays):
        before = len(kept) + len(stays)
        for name, module in modules.items():
            held_by = parameters_held(module)
            tensors = [t for t in (held_by.get("weight"), held_by.get("bias")) if t is not None]
            keys = [key for key in map(storage_key, tensors) if key in held]
            reason = next((stays[key] for key in keys if key in stays), None)
            if type(module) not in _OURS or held_by.get("weight") is None:
                reason = "a subclass, or a hook, may compute anything of it"
            if reason is not None:
                kept.setdefault(name, reason)
                for key in keys:
                    stays.setdefault(key, f"`{name}` stays as it is: {reason}")
    return stays, kept


_OURS = set(SHARED_CLASSES.values())


def _reason(one: _Held, others: list[Node]) -> str | None:
    """Why no one tensor can take the place of a kernel; ``others``: what reads it beside expansions of it."""
    if len(one.cuts) > 1:
        return "it is tied to convolutions of other numbers of groups"
    if others:
        return f"`{others[0].name}` reads it as one, or expands it in a way that is not known"
    return None


def _only_expanded(node: Node, expansions: Mapping[Node, int]) -> bool:
    """Whether everything that reads ``node`` expands it, or does not look at its shape."""
    return all(
        user in expansions
        or sees_no_shape(user, node)
        or _leads_to(user, expansions)
        or (transparent_input(user) is node and _only_expanded(user, expansions))
        for user in node.users
    )


def _leads_to(node: Node, expansions: Mapping[Node, int]) -> bool:
    """Whether ``node`` is the first half of an expansion: expanded, then reshaped."""
    return _is_expand(node) and len(node.users) == 1 and next(iter(node.users)) in expansions


def _is_expand(node: Node) -> bool:
    return node.target is torch.ops.aten.expand.default


def _expansions(graph_module: GraphModule, held: Mapping[int, _Held], state: State) -> dict[Node, int]:
    """The nodes that compute from a kernel just what it was cut from, with the storage of the kernel."""
    found: dict[Node, int] = {}
    for node in graph_module.graph.nodes:
        if not _is_expand(node) and node.target is not expand_block_diagonal:
            continue
        source = direct_node(node.args[0])
        tensor = state.read(source) if isinstance(source, Node) else None
        one = None if tensor is None else held.get(storage_key(tensor))
        if one is not None and tensor is not None and len(one.cuts) == 1:
            whole = _whole(node, one.cut)
            if whole is not None:
                found[whole] = storage_key(tensor)
    return found


def _whole(node: Node, cut: Cut) -> Node | None:
    """The node that has the full tensor: ``node``, or the reshape behind it; None if it is another one."""
    if node.target is expand_block_diagonal:
        return node if cut.block_diagonal and node.args[1] == cut.groups else None
    try:
        sizes = tuple(static_value(node.args[1]))
    except NotConstant:
        return None
    if cut.block_diagonal or sizes[0] != cut.groups:
        return None
    if cut.shape[0] == 1 and sizes == cut.full_shape:
        return node
    reshapes = (torch.ops.aten.reshape.default, torch.ops.aten.view.default)
    user = next(iter(node.users), None)
    if sizes[1:] != cut.shape or len(node.users) != 1 or user is None or user.target not in reshapes:
        return None
    shape = user.args[1]
    assert isinstance(shape, list | tuple)
    return user if tuple(shape) in ((-1, *cut.shape[1:]), cut.full_shape) else None


def _read_whole(node: Node, one: _Held) -> None:
    """Read the tensor that has its full shape again where ``node`` expanded it."""
    first = node if _is_expand(node) or node.target is expand_block_diagonal else node.args[0]
    assert isinstance(first, Node)
    passed = first.args[0]
    assert isinstance(passed, Node)
    for before in way_to_source(passed):
        edit.uncut_value(before, one.cut.full_shape)
    node.replace_all_uses_with(passed)
    edit.erase_unused(node)
