"""torch's convolution modules and those with one kernel, each put in the place of the other."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.fx import GraphModule

from fx_passes.graph.torch_internals import own_registries
from fx_passes.train.formulations import Formulation, formulation_refusal
from fx_passes.train.shared_conv import SHARED_CLASSES, SharedKernelConv


def share_module(
    graph_module: GraphModule, target: str, groups: int, block_diagonal: bool, formulation: Formulation
) -> None:
    """Put a shared convolution in the place of ``target``, whose weight has been cut down already.

    Args:
        formulation: how it is to be computed, ``"grouped"`` where it cannot be so.
    """
    plain = graph_module.get_submodule(target)
    shared: Any = _replaced(graph_module, plain, SHARED_CLASSES[type(plain)], groups)
    shared.block_diagonal = block_diagonal
    shared.formulation = "grouped" if formulation_refusal(formulation, shared) else formulation


def unshare_module(graph_module: GraphModule, target: str) -> None:
    """Put torch's own convolution in the place of a shared one, whose weight has been repeated already."""
    shared = graph_module.get_submodule(target)
    assert isinstance(shared, SharedKernelConv)
    plain_class = next(plain for plain, ours in SHARED_CLASSES.items() if ours is type(shared))
    plain = _replaced(graph_module, shared, plain_class, shared.run_groups)
    for name in ("block_diagonal", "formulation"):
        plain.__dict__.pop(name, None)


def _replaced(
    graph_module: GraphModule, old: nn.Module, new_class: type[nn.Module], groups: int
) -> nn.Module:
    """A convolution of another class with all the attributes of ``old``, under every name it has."""
    new: Any = new_class.__new__(new_class)
    new.__dict__.update(vars(old))
    own_registries(new)
    new.groups = groups
    for name, module in list(graph_module.named_modules(remove_duplicate=False)):
        if module is old:
            graph_module.set_submodule(name, new)
    return new  # type: ignore[no-any-return]
