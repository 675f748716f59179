"""Bytes -> tensors, as far as there are bytes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fx_passes.errors import LoadError

# Of a tensor whose elements are one in memory (``expand``): more are no picture and no weight.
_MOST_ELEMENTS = 1 << 32


class StoredTensor(NamedTuple):
    """A tensor as a saved program describes it."""

    dtype: torch.dtype
    sizes: list[int]
    strides: list[int]
    offset: int
    device: torch.device
    requires_grad: bool


def strided(
    stored: Tensor, dtype: torch.dtype, sizes: Sequence[int], strides: Sequence[int], offset: int, what: str
) -> Tensor:
    """A view of ``stored``, the bytes (uint8) of a storage.

    Raises:
        LoadError: the view would reach beyond the stored bytes.

    Example:
        >>> strided(torch.arange(4, dtype=torch.uint8), torch.uint8, (2, 3), (1, 0), 1, "x").tolist()
        [[1, 1, 1], [2, 2, 2]]
    """
    numbers = [*sizes, *strides, offset]
    if len(sizes) != len(strides) or not all(type(n) is int and n >= 0 for n in numbers):
        raise LoadError(f"{what} has sizes {list(sizes)!r:.60} and strides {list(strides)!r:.60}")
    if math.prod(sizes) > _MOST_ELEMENTS:
        raise LoadError(f"{what} has {math.prod(sizes):.3g} elements, at most {_MOST_ELEMENTS:.3g}")
    if stored.numel() % dtype.itemsize:
        raise LoadError(f"{what}: {stored.numel()} bytes are no whole number of {dtype}")
    held = stored.numel() // dtype.itemsize
    last = offset + sum((n - 1) * step for n, step in zip(sizes, strides, strict=True))
    if math.prod(sizes) and last >= held:
        raise LoadError(f"{what} has values up to number {last + 1}, but {held} are stored")
    return stored.view(dtype).as_strided(tuple(sizes), tuple(strides), offset)
