"""One kernel -> the full weight of all groups. The pass, the shared modules and the way back all use this."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def expand_kernel(kernel: Tensor, groups: int, shape: Sequence[int] | None = None) -> Tensor:
    """The weight (groups * rows, *rest), in which every group is ``kernel`` (rows, *rest).

    With rows = 1 it is a view of ``kernel``. Otherwise ``reshape`` makes a copy. Both are differentiable.

    Args:
        shape: the shape of ``kernel``; a caller gives it where ``kernel`` is being traced and has none.

    Example:
        >>> expand_kernel(torch.ones(1, 1, 3), 4).shape
        torch.Size([4, 1, 3])
    """
    rows, *rest = kernel.shape if shape is None else shape
    if rows == 1:
        return kernel.expand(groups, *rest)
    return kernel.expand(groups, rows, *rest).reshape(-1, *rest)


def expand_block_diagonal(kernel: Tensor, groups: int, shape: Sequence[int] | None = None) -> Tensor:
    """The dense weight with ``kernel`` (rows, columns, *k) on its ``groups`` diagonal blocks.

    Returns: (groups * rows, groups * columns, *k).

    Zeros off the blocks are +0.0, put there by ``where``: a product with a mask would leave -0.0.

    Example:
        >>> expand_block_diagonal(torch.ones(1, 1, 1), 2).squeeze()
        tensor([[1., 0.],
                [0., 1.]])
    """
    rows, columns, *rest = kernel.shape if shape is None else shape
    on_diagonal = torch.diag_embed(kernel.new_ones(groups, dtype=torch.bool))
    on_diagonal = on_diagonal.reshape(groups, 1, groups, 1, *[1] * len(rest))
    blocks = kernel.reshape(1, rows, 1, columns, *rest)
    blocks = blocks.expand(groups, rows, groups, columns, *rest)
    dense = torch.where(on_diagonal, blocks, kernel.new_zeros(()))
    return dense.reshape(groups * rows, groups * columns, *rest)
