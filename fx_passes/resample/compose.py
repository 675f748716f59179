"""Sites in a row are one site: a row and then a column, each axis of a volume, or two blurs without padding
in between.

Before:  second(first(x))
After:   one site, whose kernel is the product of the two

With ``z`` as in ``axes.py``, the first gives ``y[o] = sum over k of a[k] * z[o * s + k * d - m]`` along an
axis. The second gives ``sum over l of b[l] * y[p * t + l * e - n]`` of it. Together that is ``sum over l, k
of b[l] * a[k] * z[p * t * s + l * e * s + k * d - n * s - m]``. So the strides multiply, and the kernel is
the product of two polynomials. This holds if the second reads no padding there: padding is not what the first
would compute. It is done where an output then takes no more products.

An axis along which one of them does nothing is that of the other, padding included. A filter along the width
does the same to each row, so padding of the height does not see it. The product is rounded once. (P. P.
Vaidyanathan, Multirate Systems and Filter Banks, 1993, section 4.2: the noble identities.)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.fx import Node

from fx_passes.resample.absorb import readers
from fx_passes.resample.axes import Axis, Resample
from fx_passes.resample.site import Site, digest, key_of, takes


def composed(first: Resample, second: Resample) -> Resample | None:
    """What ``second`` computes of the output of ``first``. None if they meet in an axis that the second pads
    or where that takes more products, or pad in two modes, or do more than filter each plane.

    Example:
        >>> from fx_passes.resample.axes import Axis
        >>> shape, row, column = (1, 3, 8, 8), Axis(5, shift=2), Axis(3, shift=1)
        >>> first = Resample((Axis(1), row), 3, 1, 1, "zeros", False, shape, shape)
        >>> second = Resample((column, Axis(1)), 3, 1, 1, "zeros", False, shape, shape)
        >>> [axis.taps for axis in composed(first, second).axes]
        [3, 5]
    """
    pair = first, second
    if first.dim != second.dim or not all(map(_filters_planes, pair)):
        return None
    if first.rows > 1 and second.groups != first.groups * first.rows:
        return None
    if not (first.static and second.static) and not all(map(_keeps_planes, pair)):
        return None
    axes = [_joined(a, b, second.rows) for a, b in zip(first.axes, second.axes, strict=True)]
    if None in axes:
        return None
    modes = {one.mode for one in pair if any(axis.pad != (0, 0) for axis in one.axes)}
    if len(modes) > 1:
        return None
    return replace(
        second,
        axes=tuple(axis for axis in axes if axis is not None),
        groups=first.groups if first.rows > 1 else second.groups,
        rows=first.rows * second.rows,
        mode=modes.pop() if modes else "zeros",
        in_shape=first.in_shape,
        scale=first.scale * second.scale,
        composed=True,
    )


def _joined(first: Axis, second: Axis, rows: int) -> Axis | None:
    """One axis of a site and that of the site behind it as one. None if the second reads padding there, or
    puts in zeros, or it takes more products.

    Args:
        rows: outputs of the second for each output of the first.
    """
    if first.idle or second.idle:
        return second if first.idle else first
    # The last output reads (size - 1) * down + span - shift, and (size - 1) * down <= length + extent.
    reads_padding = second.shift > 0 or second.extent + second.span - second.shift > -1
    if second.up > 1 or reads_padding:
        return None
    step = math.gcd(*_steps(first, second)) or 1
    taps = (first.span + second.span * first.down) // step + 1
    if rows * taps > first.taps * second.down + rows * second.taps:
        return None
    return Axis(
        taps=taps,
        up=first.up,
        down=first.down * second.down,
        dilation=step,
        shift=first.shift + second.shift * first.down,
        extent=first.extent + (second.extent + 1) * first.down,
        pad=first.pad,
    )


def _steps(first: Axis, second: Axis) -> tuple[int, int]:
    """Samples between the taps of each in their product; 0: it has one tap."""
    return first.dilation * (first.taps > 1), second.dilation * first.down * (second.taps > 1)


def product(pair: tuple[Resample, Resample], first: Tensor, second: Tensor) -> Tensor | None:
    """The kernel of both, (rows of the first * rows of the second, 1, *taps). None: it has no numbers in
    their type.

    Args:
        pair: what the two sites compute; ``composed`` takes them.
        first, second: their kernels.
    """
    steps = [_steps(a, b) for a, b in zip(*(one.axes for one in pair), strict=True)]
    gcds = [math.gcd(*both) or 1 for both in steps]
    a = _spread(first.double(), [step // gcd for (step, _), gcd in zip(steps, gcds, strict=True)])
    b = _spread(second.double(), [step // gcd for (_, step), gcd in zip(steps, gcds, strict=True)])
    around = [length - 1 for length in reversed(b.shape[2:]) for _ in range(2)]
    convolve = (F.conv1d, F.conv2d, F.conv3d)[first.ndim - 3]
    wide = convolve(F.pad(a, around), b.flip(*range(2, b.ndim))).flatten(0, 1).unsqueeze(1)
    limits, largest = torch.finfo(first.dtype), float(wide.abs().max())
    return wide.to(first.dtype) if limits.tiny <= largest <= limits.max else None


def _spread(kernel: Tensor, steps: Sequence[int]) -> Tensor:
    """``kernel`` with ``step - 1`` zeros between its taps."""
    sizes = [max(n - 1, 0) * step + 1 for n, step in zip(kernel.shape[2:], steps, strict=True)]
    wide = kernel.new_zeros(*kernel.shape[:2], *sizes)
    places: tuple[Any, ...] = (..., *(slice(None, None, max(step, 1)) for step in steps))
    wide[places] = kernel
    return wide


def _leads_only_to(node: Node, conv: Node) -> bool:
    """Whether nothing but ``conv`` needs ``node``, through values that only the next one needs."""
    while node is not conv:
        behind = readers(node)
        if len(behind) != 1:
            return False
        node = behind[0]
    return True


def _in_a_row(places: Mapping[str, tuple[Node, Node, Node]]) -> dict[str, str]:
    """For each site, the one behind it that alone reads its result.

    Args:
        places: by the id of a site: its source, its convolution and its end.
    """
    by_source: dict[Node, list[str]] = {}
    for name, (source, _, _) in places.items():
        by_source.setdefault(source, []).append(name)
    return {
        name: behind[0]
        for name, (_, _, end) in places.items()
        if len(behind := by_source.get(end, [])) == 1 and _leads_only_to(end, places[behind[0]][1])
    }


def _filters_planes(one: Resample) -> bool:
    """Whether each plane is filtered by itself, and all of them alike. Where each gives one plane, the number
    of groups says nothing."""
    return one.columns == 1 and not one.block_diagonal and not one.factors


def _keeps_planes(one: Resample) -> bool:
    """Whether the sizes in front of the axes stay as they are, up to the outputs of each channel."""
    before, after = one.in_shape[: -one.dim], one.out_shape[: -one.dim]
    if one.rows == 1:
        return before == after
    channels = (one.groups,), (one.groups * one.rows,)
    return before[:-1] == after[:-1] and (before[-1:], after[-1:]) == channels and not one.leading


def with_whole_rows(sites: list[Site], nodes: Mapping[str, Node]) -> list[Site]:
    """The sites, and behind the last one of several in a row that are one site: that one."""
    behind = _in_a_row({s.id: (nodes[s.source], nodes[s.conv], nodes[s.end]) for s in sites})
    in_front = {after: before for before, after in behind.items()}
    by_id = {site.id: site for site in sites}
    rows: dict[str, Site] = {}  # by the id of the last part
    for site in sites:
        before = in_front.get(site.id, "")
        first = rows.get(before, by_id.get(before))
        if first is not None and (whole := _whole(first, site)) is not None:
            rows.pop(before, None)
            rows[site.id] = whole
    marks = {part.id: f" in {row.key}" for row in rows.values() for part in row.parts}
    found = []
    for site in sites:
        # What is chosen for a part depends on the row. So equal sites elsewhere have another key.
        found.append(replace(site, key=digest(site.key + marks[site.id])) if site.id in marks else site)
        found += [rows[site.id]] if site.id in rows else []
    return found


def _whole(first: Site, second: Site) -> Site | None:
    """Two sites, of which the second reads the result of the first, as one; None if they are none."""
    resample = composed(first.resample, second.resample)
    if resample is None or first.bias is not None or first.kernel.dtype != second.kernel.dtype:
        return None
    bias, kernel = second.bias, product((first.resample, second.resample), first.kernel, second.kernel)
    if bias is not None and bias.numel() == second.resample.rows:
        bias = bias.repeat(first.resample.rows)
    if kernel is None or not takes(kernel, resample.scale):
        return None
    return replace(
        second,
        resample=resample,
        kernel=kernel,
        bias=bias,
        key=key_of(resample, kernel, bias),
        source=first.source,
        shapes=first.shapes,
        outside=(*first.outside, *second.outside),
        parts=(*(first.parts or (first,)), second),
    )
