"""Integers, with which every sum is exact."""

from __future__ import annotations

import torch
from torch import Tensor

# Of full rank: no lowering can take it apart into a column and a row.
KERNEL = torch.tensor([[1.0, 2, -1], [0, 3, 1], [-2, 1, 1]])


def integers(shape: tuple[int, ...]) -> Tensor:
    """Return small integers of this shape, as float32."""
    return torch.randint(-4, 5, shape).float()
