"""Does a weight repeat one kernel for every group?

A grouped weight has shape (groups * rows, *rest). It repeats one kernel if its ``groups`` slices of ``rows``
along dimension 0 are equal. They are compared bit for bit by default: then the rewritten model computes the
same bits as the original. :class:`Allowed` permits differences.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


Force = Literal["mean", "first"]


@dataclass(frozen=True)
class Allowed:
    """How far the repeats may differ. By default they may not differ by a single bit.

    Args:
        tolerance: the largest allowed ``|slice - mean|``; the mean is kept.
        force: what to keep whatever the differences are: the mean of the repeats, or the first repeat.

    Raises:
        ValueError: the tolerance is negative, or ``force`` is neither of the two.
    """

    tolerance: float = 0.0
    force: Force | None = None

    def __post_init__(self) -> None:
        if not self.tolerance >= 0.0:
            raise ValueError(f"tolerance must be 0 or more, got {self.tolerance}")
        if self.force not in (None, "mean", "first"):
            raise ValueError(f"force must be 'mean' or 'first', got {self.force!r}")


EXACT = Allowed()
# Units in the last place by which a tap may be off that is a product of two rounded numbers.
_SCALED_UNITS = 2.0


@dataclass(frozen=True)
class Repeats:
    """The kernel that is repeated, and the largest distance of a repeat from it (0.0: bitwise equal)."""

    kernel: Tensor
    max_difference: float


@dataclass(frozen=True)
class Mismatch:
    """Why a weight is not a repeat: a stable code and a reason with the place and the numbers."""

    code: str
    reason: str


def bits(tensor: Tensor) -> Tensor:
    """The same memory as integers, so that ``==`` compares bits: -0.0 differs from 0.0, NaN equals itself."""
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
    return tensor.view(_BITS[tensor.element_size()])


def find_repeats(weight: Tensor, groups: int, allowed: Allowed = EXACT) -> Repeats | Mismatch:
    """The kernel that ``weight`` repeats ``groups`` times along dimension 0, or the first difference.

    Args:
        weight: (groups * rows, *rest), any dtype and layout. It is only read, and never copied whole.
        groups: the number of slices.
        allowed: how far the slices may differ.

    Returns:
        :class:`Repeats` with ``kernel`` of shape (rows, *rest). It is a view of the first slice if the bits
        are equal or the first is forced. Otherwise it is the mean of the slices, accumulated in float64.
        :class:`Mismatch` if the slices differ too much.

    Example:
        >>> find_repeats(torch.ones(6, 1, 3), groups=3).kernel.shape
        torch.Size([2, 1, 3])
        >>> find_repeats(torch.arange(3.).reshape(3, 1, 1), groups=3).reason
        'group 1 differs from group 0 by 1 at [0, 0, 0]'
    """
    if weight.numel() == 0:
        return Mismatch("empty", f"the weight of shape {list(weight.shape)} is empty")
    if nan := first_nan(weight):
        return nan
    stacked = weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:])
    first = stacked[0]
    if bool((bits(stacked) == bits(first)).all()):
        return Repeats(first, 0.0)
    if allowed == EXACT:
        return _first_difference(stacked)
    kernel, name = first, "group 0"
    if allowed.force != "first":
        wide = torch.promote_types(weight.dtype, torch.float64)
        kernel, name = stacked.mean(0, dtype=wide).to(weight.dtype), "the mean of the groups"
    distance, group, place = _largest_distance(stacked, kernel)
    if distance <= allowed.tolerance or (allowed.force and math.isfinite(distance)):
        return Repeats(kernel, distance)
    limit = (
        "and nothing finite is between" if allowed.force else f"more than the tolerance {allowed.tolerance:g}"
    )
    reason = f"group {group} is {distance:.3g} away from {name} at {place}, {limit}"
    return Mismatch("differs", reason)


@dataclass(frozen=True)
class ScaledRepeats:
    """A kernel that is repeated up to a factor for each group: ``weight[g] = factors[g] * kernel``.

    Args:
        kernel: (rows, *rest), in the type of the weight.
        factors: one for each group, in float64.
    """

    kernel: Tensor
    factors: Tensor


def find_scaled_repeats(weight: Tensor, groups: int) -> ScaledRepeats | None:
    """The kernel that ``weight`` repeats up to a factor for each group, or None.

    An exporter that multiplies the scales of a batch norm into the weight in front of it writes such weights.
    The kernel and each product were rounded once, so a tap may be off by a few units in the last place. A
    kernel of one tap is no kernel: every weight would be one. The factors are computed in float64, so that
    their rounding does not matter; for a weight in float64 it does, and some are not found.

    Args:
        weight: (groups * rows, *rest), floating-point.

    Example:
        >>> kernel = torch.tensor([1.0, 2.0, 1.0])
        >>> found = find_scaled_repeats(torch.stack([kernel, 3 * kernel]).unsqueeze(1), groups=2)
        >>> (found.factors / found.factors[0]).tolist()
        [1.0, 3.0]
    """
    if not weight.is_floating_point() or weight.shape[0] == 0 or not bool(weight.isfinite().all()):
        return None
    rows = weight.reshape(groups, -1)
    if rows.shape[1] < 2 or int((rows != 0).any(0).sum()) < 2:
        return None
    norms = torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64)
    kernel = rows[int(norms.argmax())].double()
    factors = (rows.double() @ kernel) / (kernel @ kernel)
    units = _SCALED_UNITS * torch.finfo(weight.dtype).eps
    expected = factors.unsqueeze(1) * kernel
    if bool(((rows.double() - expected).abs() > units * expected.abs()).any()):
        return None
    shape = (weight.shape[0] // groups, *weight.shape[1:])
    return ScaledRepeats(kernel.to(weight.dtype).reshape(shape), factors)


def output_change(weight: Tensor, kernel: Tensor, groups: int, transposed: bool) -> float:
    """How far the output may move for inputs of magnitude 1, if ``kernel`` replaces every slice.

    That is the largest sum of the magnitudes of all changes over one output channel: |sum dw x| <= sum|dw|
    max|x|.

    Args:
        weight: (groups * rows, *rest), as in :func:`find_repeats`.
        transposed: the output channels are dimension 1 of a slice, not dimension 0.

    Example:
        >>> output_change(torch.tensor([1.0, 3.0]).reshape(2, 1, 1), torch.tensor([[[2.0]]]), 2, False)
        1.0
    """
    worst = 0.0
    for part in weight.reshape(groups, -1, *weight.shape[1:]):
        change = _distance(part, kernel).flatten(2).sum(2)
        worst = max(worst, float(change.sum(0 if transposed else 1).max()))
    return worst


def first_nan(weight: Tensor) -> Mismatch | None:
    """A mismatch that names the first NaN of ``weight``; None if there is none."""
    if not (weight.is_floating_point() or weight.is_complex()):
        return None
    nan = weight.isnan()
    if not bool(nan.any()):
        return None
    place = nan.nonzero()[0].tolist()
    return Mismatch("nan", f"the weight is NaN at {place} ({int(nan.sum())} in all)")


def _first_difference(stacked: Tensor) -> Mismatch:
    differs = bits(stacked) != bits(stacked[0])
    if stacked.is_complex():
        differs = differs.any(-1)
    group = int(differs.flatten(1).any(1).nonzero()[0])
    place = differs[group].nonzero()[0].tolist()
    found, expected = stacked[(group, *place)], stacked[(0, *place)]
    difference = float((found - expected).abs())
    detail = f"by {difference:.3g}" if difference else "in the sign of zero"
    return Mismatch("differs", f"group {group} differs from group 0 {detail} at {place}")


def _largest_distance(stacked: Tensor, mean: Tensor) -> tuple[float, int, list[int]]:
    """The distance over all groups, one after the other: only one group at a time is held in float64."""
    worst, where, place = -1.0, 0, 0
    for group in range(stacked.shape[0]):
        distance = _distance(stacked[group], mean)
        largest = float(distance.max())
        if largest > worst or largest != largest:
            worst, where, place = largest, group, int(distance.argmax())
    index = torch.unravel_index(torch.tensor(place), mean.shape)
    return worst, where, [int(i) for i in index]


def _distance(part: Tensor, kernel: Tensor) -> Tensor:
    """|part - kernel| in float64. The difference of two finite numbers of a smaller type does not overflow
    there."""
    wide = torch.promote_types(part.dtype, torch.float64)
    # An Inf in both is no distance.
    return torch.where(part == kernel, 0, (part.to(wide) - kernel.to(wide)).abs())
