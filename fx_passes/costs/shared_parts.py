"""The work of the parts that several lowerings share, counted (``operator_times.py`` has the times).

Each lowering counts its own work in its file: ``work(site, params, block)``. Tuning times every proposal. The
static rules compare the lowerings that have a ``work``.

Arguments of all:
    site: the sizes of the site.
    params: the parameters of the proposal.
    block: channels in a block.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, TypeAlias

from fx_passes.costs.operator_times import Work, convolution, moved, nodes
from fx_passes.costs.site_sizes import Sizes
from fx_passes.resample.axes import Axis
from fx_passes.resample.phases import Phases, phases_of

Params: TypeAlias = Mapping[str, Any]


def regrouped(site: Sizes, images: int, groups: int, block: int, chain: bool = False) -> Work:
    """The convolution of the site on so many images of so many groups."""
    return convolution(site, images, groups, (site.columns, site.rows), block, flat=True, chain=chain)


def phases(axis: Axis, count: int) -> Phases:
    """``count`` outputs at a time along an axis that allows it."""
    found = phases_of(axis, count)
    assert found is not None  # or it would not be proposed
    return found


def blocks(site: Sizes, count: int) -> int:
    """How many blocks of ``count`` outputs a row has."""
    return -(-site.outputs[1] // count)


def window_height(site: Sizes) -> int:
    """How many rows of the input the outputs read."""
    return (site.outputs[0] - 1) * site.height.down + site.height.span + 1


def window(site: Sizes, across: Phases) -> Work:
    """Padding the input to whole blocks."""
    width = (blocks(site, across.count) - 1) * across.step + across.window
    height = site.inputs[0] if site.height.up > 1 else window_height(site)
    pad = moved(site.planes * height * width)
    return pad + pad if site.padded else pad


def tail(site: Sizes, count: int) -> Work:
    """Bringing channels last into the shape of the output. What whole blocks have in excess is cut off."""
    (height, width), rows = site.outputs, site.height.up
    whole = _whole(site.width, width, count, site.known) and _whole(site.height, height, rows, site.known)
    return nodes(2) + (Counter() if whole else moved(site.written)) + bias(site)


def _whole(axis: Axis, length: int, count: int, known: bool) -> bool:
    """Whether outputs fill blocks of ``count``. With open sizes it must be so at every length."""
    if known:
        return length % count == 0
    return all(axis.size(axis.span + n) % count == 0 for n in range(count * axis.down))


def bias(site: Sizes) -> Work:
    """Adding a bias of each channel at the end."""
    return moved(site.written) if site.own_bias else Counter()
