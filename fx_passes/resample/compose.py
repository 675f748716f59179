"""Sites in a row whose axes do not meet are one site: a row and then a column, or each axis of a volume.

Before:  second(first(x)), first along the width, second along the height
After:   one site along both, whose kernel is the product of the two

A filter along the width does the same to each row, and one along the height the same to each column. So their
order makes no difference, and padding of one axis does not see the other one. ``y[o, p] = sum over k and l of
column[k] * row[l] * z[o * s + k, p * t + l]``, with ``z`` as in ``axes.py``. The product is rounded once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor
from torch.fx import Node

from fx_passes.resample.absorb import readers
from fx_passes.resample.axes import Resample
from fx_passes.resample.site import Site, digest, key_of, takes


def composed(first: Resample, second: Resample) -> Resample | None:
    """What ``second`` computes of the output of ``first``. None if they meet in an axis, or pad in two modes,
    or do more than filter each plane.

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
    if any(not (a.idle or b.idle) for a, b in zip(first.axes, second.axes, strict=True)):
        return None
    modes = {one.mode for one in pair if any(axis.pad != (0, 0) for axis in one.axes)}
    if len(modes) > 1:
        return None
    axes = tuple(b if a.idle else a for a, b in zip(first.axes, second.axes, strict=True))
    return replace(
        second,
        axes=axes,
        groups=first.groups if first.rows > 1 else second.groups,
        rows=first.rows * second.rows,
        mode=modes.pop() if modes else "zeros",
        in_shape=first.in_shape,
        scale=first.scale * second.scale,
        composed=True,
    )


def product(first: Tensor, second: Tensor) -> Tensor | None:
    """The kernel of both, (rows of the first * rows of the second, 1, *taps), for kernels along different
    axes. None: it has no numbers in their type."""
    wide = (first.double().unsqueeze(1) * second.double().unsqueeze(0)).flatten(0, 1)
    limits, largest = torch.finfo(first.dtype), float(wide.abs().max())
    return wide.to(first.dtype) if limits.tiny <= largest <= limits.max else None


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
    bias, kernel = second.bias, product(first.kernel, second.kernel)
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
