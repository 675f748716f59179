"""Checkpoints of a model that repeats its kernels, loaded into the one that holds each of them once.

A tensor that was cut down has a :class:`Cut` that says from what. The full tensor of a checkpoint is checked
to repeat one kernel, bit for bit, and cut down alike; one that does not stops the load before any tensor is
written.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.fx import GraphModule

from fx_passes.errors import CheckpointError
from fx_passes.graph.restore import restore_order, restore_state
from fx_passes.graph.torch_internals import load_hooks, register_load_hook
from fx_passes.kernels.block_diagonal import diagonal_blocks, is_block_diagonal
from fx_passes.kernels.repeats import Mismatch, bits, find_repeats

# What of its own tensors a graph module holds cut down, by name, in its ``meta``.
_CUTS = "fx_passes_cuts"


@dataclass(frozen=True)
class Cut:
    """A tensor that holds once what it held for every group.

    Args:
        shape: of what is held.
        groups: how often it was.
        block_diagonal: on the diagonal blocks of a dense weight, else along dimension 0.
    """

    shape: tuple[int, ...]
    groups: int
    block_diagonal: bool = False

    @property
    def full_shape(self) -> tuple[int, ...]:
        """Of the tensor that repeats it."""
        dims = 2 if self.block_diagonal else 1
        return (*(size * self.groups for size in self.shape[:dims]), *self.shape[dims:])

    def slices(self, full: Tensor) -> Tensor:
        """(groups, *shape): the part of each group of a tensor of ``full_shape``."""
        if self.block_diagonal:
            full = diagonal_blocks(full, self.groups)
        return full.reshape(self.groups, *self.shape)


def cuts_of(model: nn.Module) -> dict[str, Cut]:
    """The tensors of ``model`` that were cut down, by all their names in its state_dict."""
    cuts: dict[str, Cut] = {}
    for prefix, module in model.named_modules(remove_duplicate=False):
        held: Mapping[str, Cut] = getattr(module, "shared_tensors", {})
        if isinstance(module, GraphModule):
            held = own_cuts(module)
        cuts.update({f"{prefix}.{name}" if prefix else name: cut for name, cut in held.items()})
    return {**_of_other_names(model, cuts), **cuts}


def _of_other_names(model: nn.Module, cuts: Mapping[str, Cut]) -> dict[str, Cut]:
    """The same for all names of the tensors that ``cuts`` names: only one of them may be that of a module
    that knows."""
    tensors: dict[str, Tensor] = dict(model.named_parameters(remove_duplicate=False))
    tensors.update(model.named_buffers(remove_duplicate=False))
    cut_down = {id(tensors[name]): cut for name, cut in cuts.items() if name in tensors}
    return {name: cut_down[id(tensor)] for name, tensor in tensors.items() if id(tensor) in cut_down}


def own_cuts(graph_module: GraphModule) -> dict[str, Cut]:
    """What of the tensors that its graph reads was cut down; those of shared modules are not among them."""
    return dict(graph_module.meta.get(_CUTS, {}))


def note_cut(graph_module: GraphModule, name: str, cut: Cut) -> None:
    """Remember that a tensor was cut down."""
    graph_module.meta[_CUTS] = {**own_cuts(graph_module), name: cut}


def forget_cuts(graph_module: GraphModule, names: Collection[str]) -> None:
    """Tensors that are not cut down any more."""
    graph_module.meta[_CUTS] = {k: cut for k, cut in own_cuts(graph_module).items() if k not in names}


def keep_cuts(graph_module: GraphModule, model: nn.Module) -> None:
    """Carry over what ``model`` holds cut down to a graph that was made of it, but for modules that stay."""
    held = cuts_of(graph_module)
    for name, cut in cuts_of(model).items():
        if name not in held:
            note_cut(graph_module, name, cut)


def shared_state_dict(model: nn.Module, state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """The checkpoint of a repeated model as one that ``model``, which shares its kernels, loads.

    What :func:`share_kernels` returned does this by itself in ``load_state_dict``, and so does each shared
    module. In a model that was written with shared modules, torch has loaded the modules in front when one of
    them finds that its repeats differ; checked here, nothing has been loaded.

    Args:
        model: a module that holds shared modules, or what :func:`share_kernels` returned.
        state_dict: by name, the full tensors or those cut down already; not changed.

    Raises:
        CheckpointError: the repeats of a tensor differ; the message names tensor, group and difference.

    Example:
        >>> import torch
        >>> from fx_passes import SharedKernelConv1d
        >>> model = nn.Sequential(SharedKernelConv1d(4, 4, 3, groups=4, bias=False))
        >>> shared_state_dict(model, {"0.weight": torch.ones(4, 1, 3)})["0.weight"].shape
        torch.Size([1, 1, 3])
    """
    loaded = dict(state_dict)
    cut_down(loaded, cuts_of(model))
    return loaded


def cut_down(
    state_dict: MutableMapping[str, Any], cuts: Mapping[str, Cut], prefix: str = "", whole: bool = True
) -> None:
    """Cut down the full tensors of ``state_dict`` in place, all or none of them.

    A tensor of any other shape is left for torch to complain about.

    Args:
        whole: ``cuts`` are those of all modules under ``prefix``.

    Raises:
        CheckpointError: the repeats of a tensor differ.
    """
    kernels: dict[str, Tensor] = {}
    wrong: list[str] = []
    for name, cut in cuts.items():
        full = state_dict.get(prefix + name)
        if not isinstance(full, Tensor) or tuple(full.shape) != cut.full_shape or cut.groups == 1:
            continue
        found = _kernel(full.detach(), cut)
        if isinstance(found, str):
            wrong.append(f"`{prefix}{name}`: {found}")
        else:
            kernels[prefix + name] = found
    if wrong:
        more = f" (and {len(wrong) - 1} more tensors)" if len(wrong) > 1 else ""
        raise CheckpointError(
            f"the checkpoint does not repeat one kernel: {wrong[0]}{more}; {_loaded(prefix, whole)}. "
            "To share it all the same, load it into the plain model, and share that with `force`"
        )
    state_dict.update(kernels)


def _kernel(full: Tensor, cut: Cut) -> Tensor | str:
    """What ``full`` repeats, or why it does not."""
    if full.is_meta:
        return full[tuple(slice(size) for size in cut.shape)]
    if cut.block_diagonal and not is_block_diagonal(full, cut.groups):
        return f"it is not zero off its {cut.groups} diagonal blocks"
    slices = cut.slices(full)
    if bool((bits(slices) == bits(slices[0])).all()):
        return slices[0].clone()  # NaN included: to load is not to judge
    found = find_repeats(slices.flatten(0, 1), cut.groups)
    assert isinstance(found, Mismatch)
    return found.reason


def _loaded(prefix: str, whole: bool) -> str:
    if whole and not prefix:
        return "nothing was loaded"
    return "nothing was loaded here, modules before it were: `shared_state_dict` checks all of them first"


@dataclass(frozen=True)
class LoadRepeated:
    """A hook in front of ``load_state_dict`` of a graph module: all its tensors are checked before the first
    is loaded."""

    cuts: dict[str, Cut]

    def __call__(self, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
        cut_down(state_dict, self.cuts, prefix)


def load_repeated(module: GraphModule) -> None:
    """Let ``module`` and its copies load the checkpoints of what it was before its tensors were cut down."""
    hooks = load_hooks(module)
    for key, wrapped in list(hooks.items()):
        if isinstance(getattr(wrapped, "hook", None), LoadRepeated):
            del hooks[key]
    if cuts := cuts_of(module):
        register_load_hook(module, LoadRepeated(cuts))
    _remember(type(module))


def _remember(kind: Any) -> None:
    """Let the copies of a graph module know what it does: torch's drop the hook, and pickle drops the cuts.

    Args:
        kind: the class of that one graph module; torch makes one for each, and puts ``forward`` there.
    """
    kind.__copy__ = lambda module: _again(
        _with_state(super(kind, module).__copy__(), module), own_cuts(module)
    )
    kind.__deepcopy__ = lambda module, memo: _again(super(kind, module).__deepcopy__(memo), own_cuts(module))
    kind.__reduce__ = lambda module: (_revived, (*super(kind, module).__reduce__(), own_cuts(module)))


def _with_state(copied: GraphModule, module: GraphModule) -> GraphModule:
    """``copied`` with the whole state_dict of ``module``; torch's copy has what the graph reads."""
    restore_state(copied, module)
    restore_order(copied, module)
    return copied


def _revived(make: Callable[..., GraphModule], arguments: Any, cuts: Mapping[str, Cut]) -> GraphModule:
    return _again(make(*arguments), cuts)


def _again(copied: GraphModule, cuts: Mapping[str, Cut]) -> GraphModule:
    """``copied``, knowing what was cut."""
    copied.meta = {**copied.meta, _CUTS: dict(cuts)}
    load_repeated(copied)
    return copied
