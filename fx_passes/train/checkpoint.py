"""Loads checkpoints of a model that repeats its kernels into the model that holds each kernel once.

A tensor that was cut has a :class:`Cut` that describes the full tensor. When a checkpoint holds the full
tensor, it is checked to repeat one kernel, bit for bit, and is cut in the same way. If its repeats differ,
the load stops before any tensor is written.
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

# The ``meta`` of a graph module has the cuts of its own tensors, by name, under this key.
_CUTS = "fx_passes_cuts"


@dataclass(frozen=True)
class Cut:
    """Describes a tensor that was cut: it holds once what the full tensor repeats for every group.

    Args:
        shape: the shape of the tensor that is held.
        groups: how often the full tensor repeats it.
        block_diagonal: the repeats are the diagonal blocks of a dense weight. False: they lie along dimension
            0.
    """

    shape: tuple[int, ...]
    groups: int
    block_diagonal: bool = False

    @property
    def full_shape(self) -> tuple[int, ...]:
        """The shape of the full tensor."""
        dims = 2 if self.block_diagonal else 1
        return (*(size * self.groups for size in self.shape[:dims]), *self.shape[dims:])

    def slices(self, full: Tensor) -> Tensor:
        """(groups, *shape): the part of each group in a tensor of ``full_shape``."""
        if self.block_diagonal:
            full = diagonal_blocks(full, self.groups)
        return full.reshape(self.groups, *self.shape)


def cuts_of(model: nn.Module) -> dict[str, Cut]:
    """The tensors of ``model`` that were cut, by all their names in its state_dict."""
    cuts: dict[str, Cut] = {}
    for prefix, module in model.named_modules(remove_duplicate=False):
        held: Mapping[str, Cut] = getattr(module, "shared_tensors", {})
        if isinstance(module, GraphModule):
            held = own_cuts(module)
        cuts.update({f"{prefix}.{name}" if prefix else name: cut for name, cut in held.items()})
    return {**_of_other_names(model, cuts), **cuts}


def _of_other_names(model: nn.Module, cuts: Mapping[str, Cut]) -> dict[str, Cut]:
    """The cuts for all names of the tensors that ``cuts`` names. Modules may know of only one name of a
    tensor."""
    tensors: dict[str, Tensor] = dict(model.named_parameters(remove_duplicate=False))
    tensors.update(model.named_buffers(remove_duplicate=False))
    cut_down = {id(tensors[name]): cut for name, cut in cuts.items() if name in tensors}
    return {name: cut_down[id(tensor)] for name, tensor in tensors.items() if id(tensor) in cut_down}


def own_cuts(graph_module: GraphModule) -> dict[str, Cut]:
    """The cuts of the tensors that the graph of a graph module reads. Those of shared modules are not among
    them."""
    return dict(graph_module.meta.get(_CUTS, {}))


def note_cut(graph_module: GraphModule, name: str, cut: Cut) -> None:
    """Remember that a tensor was cut."""
    graph_module.meta[_CUTS] = {**own_cuts(graph_module), name: cut}


def forget_cuts(graph_module: GraphModule, names: Collection[str]) -> None:
    """Forget the cuts of tensors that are full again."""
    graph_module.meta[_CUTS] = {k: cut for k, cut in own_cuts(graph_module).items() if k not in names}


def keep_cuts(graph_module: GraphModule, model: nn.Module) -> None:
    """Copy the cuts of ``model`` to a graph that was made of it. Modules that stay know their own cuts."""
    held = cuts_of(graph_module)
    for name, cut in cuts_of(model).items():
        if name not in held:
            note_cut(graph_module, name, cut)


def shared_state_dict(model: nn.Module, state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """The checkpoint of a model that repeats its kernels, converted for ``model``, which shares them.

    The result of :func:`share_kernels` does this by itself in ``load_state_dict``, and so does each shared
    module. But in a model that was written with shared modules, torch has already loaded earlier modules when
    one of them finds different repeats. This function checks all of them before anything is loaded.

    Args:
        model: a module that holds shared modules, or a result of :func:`share_kernels`.
        state_dict: tensors by name, either full or already cut. It is not changed.

    Raises:
        CheckpointError: the repeats of a tensor differ. The message names tensor, group and difference.

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
    """Cut the full tensors of ``state_dict`` in place, either all or none of them.

    A tensor of another shape is left to torch, which raises its own error.

    Args:
        cuts: the tensors that were cut in the model, by name.
        prefix: stands before the names in ``state_dict``.
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
        if isinstance(found, Mismatch):
            wrong.append(f"`{prefix}{name}`: {found.reason}")
        else:
            kernels[prefix + name] = found
    if wrong:
        more = f" (and {len(wrong) - 1} more tensors)" if len(wrong) > 1 else ""
        raise CheckpointError(
            f"the checkpoint does not repeat one kernel: {wrong[0]}{more}; {_loaded(prefix, whole)}. "
            "To share it anyway, load it into the plain model, and share that model with `force`"
        )
    state_dict.update(kernels)


def _kernel(full: Tensor, cut: Cut) -> Tensor | Mismatch:
    """The kernel that ``full`` repeats, or the reason why it repeats none."""
    if full.is_meta:
        return full[tuple(slice(size) for size in cut.shape)]
    if cut.block_diagonal and not is_block_diagonal(full, cut.groups):
        return Mismatch("dense", f"it is not zero outside its {cut.groups} diagonal blocks")
    slices = cut.slices(full)
    if bool((bits(slices) == bits(slices[0])).all()):
        return slices[0].clone()  # also NaN: loading does not judge
    found = find_repeats(slices.flatten(0, 1), cut.groups)
    assert isinstance(found, Mismatch)
    return found


def _loaded(prefix: str, whole: bool) -> str:
    if whole and not prefix:
        return "nothing was loaded"
    return "nothing was loaded here, but earlier modules were: `shared_state_dict` checks all of them first"


@dataclass(frozen=True)
class LoadRepeated:
    """A hook in front of ``load_state_dict`` of a graph module. It checks all tensors before the first is
    loaded."""

    cuts: dict[str, Cut]

    def __call__(self, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
        cut_down(state_dict, self.cuts, prefix)


def load_repeated(module: GraphModule) -> None:
    """Let ``module`` and its copies load checkpoints from before its tensors were cut."""
    hooks = load_hooks(module)
    for key, wrapped in list(hooks.items()):
        if isinstance(getattr(wrapped, "hook", None), LoadRepeated):
            del hooks[key]
    if cuts := cuts_of(module):
        register_load_hook(module, LoadRepeated(cuts))
    _remember(type(module))


def _remember(kind: Any) -> None:
    """Let the copies of a graph module keep its hook and its cuts. torch's copies drop the hook, and pickle
    drops the cuts.

    Args:
        kind: the class of that one graph module. torch makes a class for each, and puts ``forward`` there.
    """
    kind.__copy__ = lambda module: _again(
        _with_state(super(kind, module).__copy__(), module), own_cuts(module)
    )
    kind.__deepcopy__ = lambda module, memo: _again(super(kind, module).__deepcopy__(memo), own_cuts(module))
    kind.__reduce__ = lambda module: (_revived, (*super(kind, module).__reduce__(), own_cuts(module)))


def _with_state(copied: GraphModule, module: GraphModule) -> GraphModule:
    """``copied`` with the full state_dict of ``module``. torch only copies tensors that the graph reads."""
    restore_state(copied, module)
    restore_order(copied, module)
    return copied


def _revived(make: Callable[..., GraphModule], arguments: Any, cuts: Mapping[str, Cut]) -> GraphModule:
    return _again(make(*arguments), cuts)


def _again(copied: GraphModule, cuts: Mapping[str, Cut]) -> GraphModule:
    """``copied`` with the cuts and the hook."""
    copied.meta = {**copied.meta, _CUTS: dict(cuts)}
    load_repeated(copied)
    return copied
