"""Is a weight one kernel repeated for every group? Facts about numbers, no graphs.

A grouped weight has shape (groups * rows, *rest); it is shared when the ``groups`` slices of
``rows`` along dimension 0 are the same. Bitwise by default, because then the rewritten model computes
bit for bit what the original does; with ``tolerance`` > 0 every slice must lie within it, in
absolute value, of their mean.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True)
class Repeats:
    """The kernel that is repeated, and how far any repeat is from it (0.0: bitwise equal)."""

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


def find_repeats(weight: Tensor, groups: int, tolerance: float = 0.0) -> Repeats | Mismatch:
    """The kernel that ``weight`` repeats ``groups`` times along dimension 0, or why it does not.

    Args:
        weight: (groups * rows, *rest), any dtype and layout; it is read, never copied whole.
        groups: how many slices there should be.
        tolerance: largest allowed ``|slice - mean|``; 0.0 asks for equal bits.

    Returns:
        :class:`Repeats` with ``kernel`` of shape (rows, *rest): a view of the first slice when the
        bits are equal, else the mean of the slices, accumulated in float64; or :class:`Mismatch`.

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
    if tolerance == 0.0:
        return _first_difference(stacked)
    mean = stacked.mean(0, dtype=torch.promote_types(weight.dtype, torch.float64)).to(weight.dtype)
    distance, group, place = _largest_distance(stacked, mean)
    if not distance <= tolerance:
        return Mismatch(
            "differs",
            f"group {group} is {distance:.3g} away from the mean of the groups at {place}, "
            f"more than the tolerance {tolerance:g}",
        )
    return Repeats(mean, distance)


def first_nan(weight: Tensor) -> Mismatch | None:
    """A refusal that names the first NaN of ``weight``, or None when there is none."""
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
    """Group by group, so that no more than one group is held in another precision."""
    worst, where, place = -1.0, 0, 0
    for group in range(stacked.shape[0]):
        equal = stacked[group] == mean  # an Inf in every group is no distance
        distance = torch.where(equal, 0, (stacked[group] - mean).abs())
        largest = float(distance.max())
        if largest > worst or largest != largest:
            worst, where, place = largest, group, int(distance.argmax())
    index = torch.unravel_index(torch.tensor(place), mean.shape)
    return worst, where, [int(i) for i in index]
