"""An example whose open sizes are 2 where the given one has 1.

torch looks at the example to decide how a result lies in memory. At a batch of one, a picture with its
channels last looks like one with its channels first, and torch then writes down that the batch is one. At two
it does not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from fx_passes.graph.torch_internals import pytree


def larger_example(inputs: tuple[Any, ...], asked: Sequence[Mapping[int, Any]]) -> tuple[Any, ...] | None:
    """``inputs``, with each open size of 1 doubled. None: there are no such sizes.

    Args:
        inputs: positional arguments.
        asked: for each leaf of them, the sizes that should stay open, by dimension.

    Example:
        >>> import torch
        >>> (x,) = larger_example((torch.ones(1, 3, 1),), [{0: "batch"}])
        >>> tuple(x.shape)
        (2, 3, 1)
    """
    leaves, structure = pytree.tree_flatten(inputs)
    if len(leaves) != len(asked):
        return None
    larger = [_doubled(leaf, sizes) for leaf, sizes in zip(leaves, asked, strict=True)]
    if all(new is old for new, old in zip(larger, leaves, strict=True)):
        return None
    return tuple(pytree.tree_unflatten(larger, structure))


def _doubled(leaf: Any, sizes: Mapping[int, Any]) -> Any:
    for dim, wanted in sizes.items():
        if isinstance(leaf, Tensor) and wanted is not None and leaf.shape[dim] == 1:
            leaf = leaf.repeat_interleave(2, dim)
    return leaf
