"""What a map of indices does to each axis: padding, zeros between samples, a slice, or something else.

A map has a number for each place of a tensor: 1 + the flat position of the element that is there, or 0 for
padding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fx_passes.resample.axes import Moved


def axis_maps(index: Tensor, shape: tuple[int, ...], dim: int) -> list[tuple[Moved, str]] | None:
    """What a map does to each of the last ``dim`` axes of a tensor of ``shape``; None if it does anything
    else."""
    if len(shape) < dim or len(index.shape) < dim or index.numel() == 0:
        return None
    if not all_planes(index, tuple(index.shape), shape, dim):
        return None
    lines = positions(index.reshape(-1, *index.shape[-dim:]), shape[-dim:])
    if lines is None:
        return None
    moved = [_recognise(line, size) for line, size in zip(lines, shape[-dim:], strict=True)]
    return [move for move in moved if move is not None] if None not in moved else None


def positions(index: Tensor, sizes: tuple[int, ...]) -> list[list[int]] | None:
    """For each axis, the source position of each place (-1: padding). None if axes and planes depend on each
    other.

    Args:
        index: (planes, *places), 1 + the flat position in (planes, *sizes), or 0.
    """
    found = index[0].nonzero()
    if index.shape[0] == 0 or len(found) == 0:
        return None
    start, lines = found[0].tolist(), []
    for axis, size in enumerate(sizes):
        inner = 1
        for other in sizes[axis + 1 :]:
            inner *= other
        place: list[Any] = [0, *start]
        place[axis + 1] = slice(None)
        line = index[tuple(place)]
        lines.append(torch.where(line > 0, (line - 1) // inner % size, -1))
    flat, plane = torch.zeros((), dtype=torch.long), 1
    known = torch.ones((), dtype=torch.bool)
    for line, size in zip(lines, sizes, strict=True):
        flat = flat.unsqueeze(-1) * size + line
        known = known.unsqueeze(-1) & (line >= 0)
        plane *= size
    offsets = torch.arange(index.shape[0]).reshape(-1, *[1] * len(sizes)) * plane
    expected = torch.where(known, flat + offsets + 1, 0)
    return [line.tolist() for line in lines] if torch.equal(expected, index) else None


def _recognise(line: list[int], size: int) -> tuple[Moved, str] | None:
    """The padding or zero stuffing that makes ``line`` of positions 0 ... size - 1."""
    length = len(line)
    places = [place for place, position in enumerate(line) if position >= 0]
    first = places[0]
    up = 1
    if len(places) > 1 and line[places[1]] > line[first]:
        up = max(1, (places[1] - first) // (line[places[1]] - line[first]))
    origin = first - line[first] * up
    inside = [divmod(place - origin, up) for place in range(length)]
    if line == [q if r == 0 and 0 <= q < size else -1 for q, r in inside]:
        return Moved(up, origin, length), "zeros"
    if 0 not in line:
        return None
    for origin in {line.index(0), max((p for p in places if line[p : p + 2] == [0, 1]), default=0)}:
        pad = origin, length - size - origin
        if min(pad) < 0:
            continue
        for mode in ("reflect", "replicate") if size > 1 else ("replicate",):
            if line == [_continued(place - origin, size, mode) for place in range(length)]:
                return Moved(1, origin, length, pad), mode
    return None


def _continued(position: int, size: int, mode: str) -> int:
    """The sample that a padding mode puts at ``position`` of a line of ``size``."""
    if mode == "replicate" or size == 1:
        return min(max(position, 0), size - 1)
    position = abs(position) % (2 * (size - 1))
    return min(position, 2 * (size - 1) - position)


def all_planes(index: Tensor, shape: Sequence[int], before: Sequence[int], dim: int) -> bool:
    """Whether a map to ``shape`` has as many planes as there were in ``before``."""
    return math.prod(shape[:-dim]) == math.prod(before[:-dim]) and index.numel() == math.prod(shape)
