"""A 2-D kernel as a sum of products of a column and a row. A kernel of rank 1 is one product.

A pivot is tried first. With rank 1, ``K = column * row / pivot`` holds for any element that is not zero.
Binomial, box and bilinear kernels then factor without rounding; an SVD would round them. The SVD (Eckart and
Young 1936) computes the rest: kernels that have rank 1 up to their own rounding, and higher ranks.
"""

from __future__ import annotations

import torch
from torch import Tensor

# A factorisation may differ by a few roundings of the largest element: computing the kernel has cost as much.
_ULPS = 4.0


def factorise(kernel: Tensor, most: int) -> list[tuple[Tensor, Tensor]] | None:
    """At most ``most`` pairs (column, row) with ``kernel = sum of outer(column, row)``; None if there are
    none.

    Args:
        kernel: (kh, kw), floating point; its own precision decides what counts as equal.
        most: the largest number of pairs.

    Returns:
        Pairs of float64 tensors (kh,) and (kw,). Their sum differs from ``kernel`` by a few units in the last
        place of its largest element.

    Example:
        >>> pairs = factorise(torch.tensor([[1.0, 2.0], [2.0, 4.0]]), 1)
        >>> [(c.tolist(), r.tolist()) for c, r in pairs]
        [([1.0, 2.0], [1.0, 2.0])]
    """
    exact = kernel.detach().double()
    if not bool(torch.isfinite(exact).all()) or not bool(exact.any()):
        return None
    if 1 in exact.shape:  # a column or a row is its own factor
        one = torch.ones(1, dtype=torch.float64)
        return [(exact[:, 0], one) if exact.shape[1] == 1 else (one, exact[0])]
    allowed = _ULPS * torch.finfo(kernel.dtype).eps * float(exact.abs().max())
    sizes = exact.abs()
    # The smallest element keeps binomial kernels integers; the largest loses the least.
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


def zeros_agree(column: Tensor, row: Tensor, kernel: Tensor) -> bool:
    """Whether a product of two factors is zero where the kernel is, in its type.

    Where an element of the kernel underflowed to 0 and its factors did not, NaN = 0 * Inf would be Inf.

    Example:
        >>> column, row = torch.tensor([0.0, 1.0]), torch.tensor([1.0, 2.0])
        >>> zeros_agree(column, row, torch.tensor([[0.0, 0.0], [1.0, 2.0]]))
        True
    """
    factors = column.to(kernel.dtype) != 0, row.to(kernel.dtype) != 0
    return torch.equal(torch.outer(*factors), kernel != 0)
