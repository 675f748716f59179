"""What each lowering makes onnxruntime do at a site: the one place where they are compared without a clock.

``WORK`` has the lowerings that the static rules know. One that is not in it is proposed, and tuning times it,
but the rules never choose it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeAlias

from fx_passes.costs import (
    Work,
    convolution,
    depthwise,
    moved,
    nodes,
    one_to_many,
    original,
    takes_blocks,
)
from fx_passes.lowerings.low_rank import MOST
from fx_passes.phases import Phases, phases_of
from fx_passes.records import Proposal
from fx_passes.resample import Axis
from fx_passes.site_sizes import Sizes

Params: TypeAlias = Mapping[str, Any]
Way: TypeAlias = Callable[[Sizes, Params, int], Work]


def _regrouped(site: Sizes, images: int, groups: int, block: int, chain: bool = False) -> Work:
    return convolution(site, images, groups, (site.columns, site.rows), block, flat=True, chain=chain)


def _lift(site: Sizes, params: Params, block: int) -> Work:
    return _regrouped(site, site.items, site.groups, block) + _bias(site)


def _grouped(site: Sizes, params: Params, block: int) -> Work:
    return _regrouped(site, site.items, site.groups, block, takes_blocks(site, block)) + _bias(site)


def _fold_batch(site: Sizes, params: Params, block: int) -> Work:
    return _regrouped(site, 1, site.planes, block) + _bias(site)


def _fold_channels(site: Sizes, params: Params, block: int) -> Work:
    return _regrouped(site, site.planes, 1, block) + _bias(site)


def _separable(site: Sizes, params: Params, block: int) -> Work:
    """Row, then column; what is in blocks in between stays so."""
    height, width = site.height, site.width
    chain = takes_blocks(site, block)
    across = replace(site, outputs=(site.inputs[0], site.outputs[1]), height=replace(height, taps=1, down=1))
    down = replace(site, inputs=across.outputs, width=replace(width, taps=1, down=1), padded=False)
    row = _regrouped(across, site.items, site.groups, block, chain)
    return row + _regrouped(down, site.items, site.groups, block, chain or site.groups % 4 == 0) + _bias(site)


def _polyphase(site: Sizes, params: Params, block: int) -> Work:
    count, across = params["phases"], _phases(site.width, params["phases"])
    out, taps = (site.outputs[0], _blocks(site, count)), (site.height.taps, across.window)
    return _window(site, across) + one_to_many(site.planes, (1, count), out, taps, block) + _tail(site, count)


def _separable_polyphase(site: Sizes, params: Params, block: int, rank: int = 1) -> Work:
    count, across = params["phases"], _phases(site.width, params["phases"])
    blocks, height = _blocks(site, count), _window_height(site)
    rows = one_to_many(site.planes, (1, count * rank), (height, blocks), (1, across.window), block)
    columns = depthwise(site.planes, count * rank, (site.outputs[0], blocks), (site.height.taps, 1), block)
    sums = moved(2 * rank * site.written) if rank > 1 else Counter()
    return _window(site, across) + rows + columns + sums + _tail(site, count)


def _low_rank(site: Sizes, params: Params, block: int) -> Work:
    return _separable_polyphase(site, params, block, MOST)


def _column_polyphase(site: Sizes, params: Params, block: int) -> Work:
    count, down = params["phases"], _phases(site.height, params["phases"])
    blocks = -(-site.outputs[0] // count)
    wide = (site.outputs[1] - 1) * site.width.down + site.width.span + 1
    columns = one_to_many(site.planes, (1, count), (blocks, wide), (down.window, 1), block)
    rows = depthwise(site.planes, count, (blocks, site.outputs[1]), (1, site.width.taps), block)
    return (
        moved(site.planes * wide * blocks * down.step) + columns + rows + moved(site.written) + _tail(site, 1)
    )


def _transposed_polyphase(site: Sizes, params: Params, block: int) -> Work:
    count, across = params["phases"], _phases(site.width, params["phases"])
    if site.height.up == 1:
        return _polyphase(site, params, block)
    down = _phases(site.height, site.height.up)
    out, taps = (-(-site.outputs[0] // down.count), _blocks(site, count)), (down.window, across.window)
    stacked = params["interleave"] == "stack"
    calls, many = (down.count, count) if stacked else (1, count * down.count)
    work: Work = Counter()
    for _ in range(calls):
        work += one_to_many(site.planes, (1, many), out, taps, block) + nodes(2)
    split = Counter() if stacked else moved(site.written, "interleave")
    return _window(site, across) + work + split + moved(site.written, "interleave") + _tail(site, count)


def _transposed_separable(site: Sizes, params: Params, block: int) -> Work:
    count, across = params["phases"], _phases(site.width, params["phases"])
    down = _phases(site.height, site.height.up)
    blocks = -(-site.outputs[0] // down.count)
    height = blocks * down.step + down.window - 1
    rows = one_to_many(site.planes, (1, count), (height, _blocks(site, count)), (1, across.window), block)
    seen = site.planes * down.window * blocks * site.outputs[1]
    products = Counter(multiply_packed=seen * down.count, scatter=site.written, call=site.planes)
    stack = moved(site.planes * height * site.outputs[1]) + moved(seen, "interleave")
    return _window(site, across) + rows + stack + products + nodes(6) + _tail(site, count)


def _banded(site: Sizes, params: Params, block: int) -> Work:
    """One product for all lines, and one for each plane."""
    (height, width), (out_height, out_width) = site.inputs, site.outputs
    work = Counter(multiply_matrix=site.planes * height * width * out_width, node=1)
    if site.dim == 2:
        products = site.planes * height * out_height * out_width
        work += Counter(multiply_matrix=products, call_matrix=site.planes, node=1)
    return work + _bias(site)


WORK: dict[str, Way] = {
    "lift": _lift,
    "grouped": _grouped,
    "fold_batch": _fold_batch,
    "fold_channels": _fold_channels,
    "separable": _separable,
    "polyphase": _polyphase,
    "separable_polyphase": _separable_polyphase,
    "column_polyphase": _column_polyphase,
    "low_rank": _low_rank,
    "transposed_polyphase": _transposed_polyphase,
    "transposed_separable": _transposed_separable,
    "banded": _banded,
}


def works(site: Sizes, proposal: Proposal, block: int, siblings: int = 1) -> tuple[Work, Work] | None:
    """What a site is as it is, and lowered, at the worst place it can have in a graph; None: not known.

    That is between two convolutions that keep their channels in blocks, where the original needs no
    reordering and most lowerings do.
    """
    chain = takes_blocks(site, block)
    before = original(site, block, chain)
    lowering = proposal.lowering
    if proposal.merged:
        together = replace(site, items=site.items * siblings)
        pair = works(together, replace(proposal, merged=False), block)
        copies = moved(siblings * site.read) + moved(siblings * site.written)
        return None if pair is None else (_times(before, siblings), pair[1] + copies)
    if lowering not in WORK:
        return None
    after = WORK[lowering](site, dict(proposal.params), block)
    # With open sizes, these end in a Reshape as well.
    if chain and not (site.known and lowering in ("separable", "grouped")):
        after += moved(site.read) + moved(site.written)
    return before, after


def _times(work: Work, count: int) -> Work:
    return Counter({name: count * amount for name, amount in work.items()})


def _phases(axis: Axis, count: int) -> Phases:
    phases = phases_of(axis, count)
    assert phases is not None  # or it would not be proposed
    return phases


def _blocks(site: Sizes, count: int) -> int:
    return -(-site.outputs[1] // count)


def _window_height(site: Sizes) -> int:
    return (site.outputs[0] - 1) * site.height.down + site.height.span + 1


def _window(site: Sizes, across: Phases) -> Work:
    """The input, padded to whole blocks."""
    width = (_blocks(site, across.count) - 1) * across.step + across.window
    height = site.inputs[0] if site.height.up > 1 else _window_height(site)
    pad = moved(site.planes * height * width)
    return pad + pad if site.padded else pad


def _tail(site: Sizes, count: int) -> Work:
    """Channels last and in the shape of the output, cut where blocks were not whole."""
    whole = site.outputs[1] % count == 0 and site.outputs[0] % site.height.up == 0
    return nodes(2) + (Counter() if whole else moved(site.written)) + _bias(site)


def _bias(site: Sizes) -> Work:
    """Every channel's own is added at the end."""
    return moved(site.written) if site.own_bias else Counter()
