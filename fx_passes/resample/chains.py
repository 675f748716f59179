"""Chains of operators that move data, run on a tensor of indices.

A model has many equal chains, and a map takes milliseconds. So a chain is described by values that can be
compared, and its map is kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from fx_passes.graph.constants import NotConstant, static_value
from fx_passes.graph.operators import TRANSPARENT, base_name
from fx_passes.resample.axes import Moved
from fx_passes.resample.index_map import all_planes, axis_maps, positions
from fx_passes.resample.lengths import size_of

# For a larger tensor, making the map takes longer than running most models.
MOST_ELEMENTS = 1 << 27
# An operator of a chain with the arguments behind its tensor. Equal chains have equal steps.
Step = tuple[Any, tuple[Any, ...], tuple[tuple[str, Any], ...]]


def steps_of(chain: Iterable[Node]) -> tuple[Step, ...] | None:
    """The operators of a chain, as values that can be compared. None if a parameter is not known."""
    steps: list[Step] = []
    try:
        for node in chain:
            if base_name(node) in TRANSPARENT:
                steps.append(("contiguous", (), ()))  # for a view behind it
                continue
            args, kwargs = _sized(node.args[1:]), _sized(dict(node.kwargs))
            steps.append((node.target, _frozen(args), tuple((k, _frozen(v)) for k, v in kwargs.items())))
    except NotConstant:
        return None
    return tuple(steps)


def _sized(arguments: Any) -> Any:
    """Arguments with an expression for each open size, whether a node computes it or the graph holds it."""

    def size(node: Node) -> Any:
        value = node.meta.get("val")
        return size_of(value) if isinstance(value, int | torch.SymInt) else node

    return static_value(torch.fx.map_arg(arguments, size))


def _frozen(value: Any) -> Any:
    if isinstance(value, torch.SymInt):
        return size_of(value)
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value


@lru_cache(maxsize=4096)
def axes_moved(
    steps: tuple[Step, ...], shape: tuple[int, ...], after: tuple[int, ...], dim: int
) -> tuple[tuple[Moved, str], ...] | None:
    """What a chain on a tensor of ``shape``, which gives one of shape ``after``, does to each of the last
    ``dim`` axes."""
    index = _run(steps, shape)
    if index is None or tuple(index.shape) != after:
        return None
    moved = axis_maps(index, shape, dim)
    return None if moved is None else tuple(moved)


@lru_cache(maxsize=4096)
def places_kept(
    steps: tuple[Step, ...], before: tuple[int, ...], after: tuple[int, ...], dim: int
) -> tuple[tuple[int, int, int], ...] | None:
    """The first place, the step and the number of the places that a chain keeps of each of the last ``dim``
    axes. None if it does anything else."""
    index = _run(steps, before)
    if index is None or index.numel() == 0 or not all_planes(index, after, before, dim):
        return None
    lines = positions(index.reshape(-1, *after[-dim:]), before[-dim:])
    if lines is None:
        return None
    cuts = []
    for line in lines:
        step = line[1] - line[0] if len(line) > 1 else 1
        if -1 in line or step < 1 or line != list(range(line[0], line[0] + step * len(line), step)):
            return None
        cuts.append((line[0], step, len(line)))
    return tuple(cuts)


def _run(steps: tuple[Step, ...], shape: tuple[int, ...]) -> Tensor | None:
    """The result of a chain for the numbers 1, 2, ... in a tensor of ``shape``. Padding with zeros leaves
    0."""
    if not all(isinstance(size, int) and size > 0 for size in shape):
        return None
    if (count := math.prod(shape)) > MOST_ELEMENTS:
        return None
    index = torch.arange(1, count + 1, dtype=torch.float64).reshape(shape)
    try:
        for target, args, kwargs in steps:
            if isinstance(target, str):
                index = getattr(index, target)(*args, **dict(kwargs))
            else:
                index = target(index, *args, **dict(kwargs))
    except (RuntimeError, TypeError):  # sizes or a layout that an operator does not take
        return None
    return index.long()
