"""Does a dense weight hold one kernel on its diagonal blocks, and zero elsewhere?

diffusers' ``KDownsample2D`` and ``KUpsample2D`` filter every channel alike by a dense convolution. Its weight
(C, C, kh, kw) is zero wherever output channel and input channel differ. Written with blocks:

    weight[g * rows + r, h * columns + c]  =  kernel[r, c]  if g == h, else +0.0
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fx_passes.kernels.repeats import EXACT, Allowed, Mismatch, Repeats, bits, find_repeats


def find_diagonal_blocks(weight: Tensor, allowed: Allowed = EXACT) -> tuple[int, Repeats | Mismatch] | None:
    """The largest number of equal diagonal blocks of ``weight``, and the kernel that they repeat.

    Args:
        weight: (rows, columns, *kernel).
        allowed: how far the blocks may differ.

    Returns:
        None for an ordinary dense weight. Otherwise the number of blocks (above 1), and either the kernel of
        shape (rows/blocks, columns/blocks, *kernel), or how the blocks differ.

    Example:
        >>> eye = torch.eye(4).reshape(4, 4, 1)
        >>> blocks, repeats = find_diagonal_blocks(eye)
        >>> blocks, repeats.kernel.shape
        (4, torch.Size([1, 1, 1]))
    """
    rows, columns = weight.shape[:2]
    most = math.gcd(rows, columns)
    if most < 2 or weight.numel() == 0:
        return None
    # The corner is outside the blocks, however many there are: this excludes nearly all dense weights.
    if bool(bits(weight[0, -1]).any()) or bool(bits(weight[-1, 0]).any()):
        return None
    occupied = (bits(weight) != 0).reshape(rows, columns, -1).any(-1)
    if not bool(occupied.any()):
        return None
    candidate: tuple[int, Repeats | Mismatch] | None = None
    for blocks in (n for n in range(most, 1, -1) if rows % n == 0 and columns % n == 0):
        if not _zero_off_diagonal(occupied, blocks):
            continue
        found = find_repeats(diagonal_blocks(weight, blocks), blocks, allowed)
        if isinstance(found, Repeats):
            return blocks, found
        candidate = candidate or (blocks, found)
    return candidate


def diagonal_blocks(weight: Tensor, blocks: int) -> Tensor:
    """The diagonal blocks stacked along dimension 0: (rows, columns/blocks, *kernel), a grouped weight."""
    rows, columns = weight.shape[0] // blocks, weight.shape[1] // blocks
    return torch.cat(
        [weight[g * rows : (g + 1) * rows, g * columns : (g + 1) * columns] for g in range(blocks)]
    )


def is_block_diagonal(weight: Tensor, blocks: int) -> bool:
    """Whether a dense weight (rows, columns, *kernel) is +0.0 off so many equal diagonal blocks."""
    occupied = (bits(weight) != 0).reshape(*weight.shape[:2], -1).any(-1)
    return _zero_off_diagonal(occupied, blocks)


def _zero_off_diagonal(occupied: Tensor, blocks: int) -> bool:
    rows, columns = occupied.shape[0] // blocks, occupied.shape[1] // blocks
    tiles = occupied.reshape(blocks, rows, blocks, columns).any(3).any(1)
    return not bool((tiles & ~torch.eye(blocks, dtype=torch.bool, device=tiles.device)).any())
