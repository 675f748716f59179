"""A 2-D kernel as a sum of products of a column and a row: one product where its rank is 1.

Pivot first: for rank 1, ``K = column * row / pivot`` through any element that is not zero; binomial, box and
bilinear kernels then factor without rounding, which an SVD would not. The SVD (Eckart and Young 1936) is for
what is left: rank 1 up to the rounding of the kernel itself, and higher ranks.
"""

from __future__ import annotations

import torch
from torch import Tensor

# A factorisation may be off by a few roundings of the largest element: what computing the kernel cost
# already.
_ULPS = 4.0


def factorise(kernel: Tensor, most: int) -> list[tuple[Tensor, Tensor]] | None:
    """At most ``most`` pairs (column, row) with ``kernel = sum of outer(column, row)``, or None.

    Args:
        kernel: (kh, kw), float; judged by its own precision.

    Returns:
        float64 pairs of shapes (kh,) and (kw,); their sum agrees with ``kernel`` to a few units in the last
        place of its largest element.

    Example:
        >>> pairs = factorise(torch.tensor([[1.0, 2.0], [2.0, 4.0]]), 1)
        >>> [(c.tolist(), r.tolist()) for c, r in pairs]
        [([1.0, 2.0], [1.0, 2.0])]
    """
    exact = kernel.detach().double()
    if not bool(torch.isfinite(exact).all()) or not bool(exact.any()):
        return None
    allowed = _ULPS * torch.finfo(kernel.dtype).eps * float(exact.abs().max())
    sizes = exact.abs()
    # Through the smallest element binomial kernels and their like stay integers; the largest loses the least.
    for place in (int(torch.where(sizes > 0, sizes, torch.inf).argmin()), int(sizes.argmax())):
        pair = _through_pivot(exact, place)
        rounded = [factor.to(kernel.dtype).double() for factor in pair]
        if torch.equal(torch.outer(*rounded), exact):
            return [pair]
    if float((torch.outer(*pair) - exact).abs().max()) <= allowed:
        return [pair]
    left, values, right = torch.linalg.svd(exact, full_matrices=False)
    for rank in range(1, most + 1):
        roots = values[:rank].sqrt()
        pairs = [(left[:, i] * roots[i], right[i] * roots[i]) for i in range(min(rank, len(values)))]
        total = torch.stack([torch.outer(column, row) for column, row in pairs]).sum(0)
        if float((total - exact).abs().max()) <= allowed:
            return pairs
    return None


def _through_pivot(kernel: Tensor, place: int) -> tuple[Tensor, Tensor]:
    """Column and row through the element at flat position ``place``, the column divided by it."""
    row, column = place // kernel.shape[1], place % kernel.shape[1]
    return kernel[:, column] / kernel[row, column], kernel[row].clone()
