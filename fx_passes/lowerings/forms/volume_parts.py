"""The parts of a site of three dimensions, each a site of two: its planes, and its lines along the depth.

The kernel must be the product of a line along the depth and a plane: ``K[d, h, w] = line[d] * plane[h, w]``.
A filter along the depth does the same to each place of a plane, and one in the plane the same at each depth.
So either can come first, and padding of one does not see the other (``resample/compose.py`` has the algebra).
The one that leaves fewer samples comes first. A convolution that filters only planes, or only lines, has one
part.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor

from fx_passes.costs.site_sizes import Sizes
from fx_passes.kernels.factor import factorise, zeros_agree
from fx_passes.lowerings.forms.refusals import channels_refusal, refuse
from fx_passes.records import Exactness, Refusal
from fx_passes.resample.axes import Axis, Resample


@dataclass(frozen=True)
class Part:
    """A site of two dimensions that computes a part of a volume.

    Args:
        along: ``"planes"`` or ``"lines"``.
        kernel: (1, 1, kh, kw).
    """

    along: Literal["planes", "lines"]
    resample: Resample
    kernel: Tensor


@dataclass(frozen=True)
class Parts:
    """The parts of a volume, in the order in which they are computed, and how exact it is to compute them."""

    inside: tuple[Part, ...]
    exactness: Exactness


def parts_of(resample: Resample, kernel: Tensor) -> Parts | Refusal:
    """The parts of a site of three dimensions.

    Args:
        resample: what the site computes.
        kernel: (1, 1, kd, kh, kw).
    """
    if refusal := channels_refusal(resample):
        return refusal
    depth, (height, width) = resample.axes[0], resample.axes[1:]
    kd, kh, kw = kernel.shape[2:]
    if depth.idle:
        return Parts((_planes(resample, kernel[:, :, 0], resample.in_shape[-3]),), "bitwise")
    if height.idle and width.idle:
        return Parts((_lines(resample, kernel[..., 0, 0], resample.in_shape[-2:]),), "bitwise")
    pairs = factorise(kernel.reshape(kd, kh * kw), 1)
    if pairs is None:
        return refuse("rank", "its kernel is no product of a line along the depth and a plane")
    line, plane = (factor.to(kernel.dtype) for factor in pairs[0])
    exactness: Exactness = "reordered" if zeros_agree(line, plane, kernel.reshape(kd, -1)) else "finite"
    first, scaled = replace(resample, scale=1.0), resample
    line, plane = line[None, None], plane.reshape(1, 1, kh, kw)
    if _left(depth) < _left(height, width):
        before = _lines(first, line, resample.in_shape[-2:])
        return Parts((before, _planes(scaled, plane, _size(depth, resample.in_shape[-3]))), exactness)
    sizes = [_size(axis, n) for axis, n in zip((height, width), resample.in_shape[-2:], strict=True)]
    return Parts((_planes(first, plane, resample.in_shape[-3]), _lines(scaled, line, sizes)), exactness)


def sizes_of_parts(site: Sizes) -> dict[str, Sizes]:
    """The sizes of the parts of a volume by their names, in the order of ``parts_of``."""
    before, after = site.depths
    if site.depth.idle:
        return {"planes": site.as_planes(before)}
    if site.height.idle and site.width.idle:
        return {"lines": site.as_lines(site.inputs)}
    if _left(site.depth) < _left(site.height, site.width):
        return {"lines": site.as_lines(site.inputs), "planes": site.as_planes(after)}
    return {"planes": site.as_planes(before), "lines": site.as_lines(site.outputs)}


def _planes(resample: Resample, kernel: Tensor, depth: int | None) -> Part:
    """The planes of a volume that has ``depth`` of them for each channel."""
    groups = 1 if depth is None else max(depth, 1) * resample.groups
    items = None if depth is None else _items(resample)
    return Part("planes", _flat(resample, resample.axes[1:], groups, items, resample.in_shape[-2:]), kernel)


def _lines(resample: Resample, kernel: Tensor, plane: Sequence[int | None]) -> Part:
    """The lines along the depth of a volume with planes of the size ``plane``."""
    places = None if None in plane else math.prod(size or 0 for size in plane)
    sizes = resample.in_shape[-3], places
    flat = _flat(resample, (resample.axes[0], Axis(1)), resample.groups, _items(resample), sizes)
    return Part("lines", flat, kernel[..., None])


def _flat(
    resample: Resample,
    axes: tuple[Axis, ...],
    groups: int,
    items: int | None,
    sizes: Sequence[int | None],
) -> Resample:
    outs = [_size(axis, size) for axis, size in zip(axes, sizes, strict=True)]
    return replace(
        resample,
        axes=axes,
        groups=groups,
        mode=resample.mode if any(axis.pad != (0, 0) for axis in axes) else "zeros",
        in_shape=(items, groups, *sizes),
        out_shape=(items, groups, *outs),
        factors=(),
        leading=(),
        of_volume=True,
    )


def _items(resample: Resample) -> int | None:
    """Batch items of a volume, None if they are open."""
    known = resample.in_shape[:-3]
    return None if None in known else math.prod(size or 0 for size in known) // resample.groups


def _size(axis: Axis, size: int | None) -> int | None:
    return None if size is None else axis.size(size)


def _left(*axes: Axis) -> float:
    """How many samples of an input of one sample an axis leaves."""
    return math.prod(axis.up / axis.down for axis in axes)
