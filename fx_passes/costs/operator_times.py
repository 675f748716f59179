"""The time of onnxruntime for a convolution of a given shape: its work, counted, times constants.

onnxruntime has four ways to compute a convolution on a CPU. The shape alone decides which one it takes:

    one_to_many   fewer channels than a block: straight from the input, blocks of output channels
    depthwise     one channel a group, 2-D, a multiple of 4 channels: in blocks of channels
    looped        other groups, and all 1-D: columns are gathered, one product for each group, in turn
    scattered     transposed: one product for each group; the results are added where they overlap

A block has as many channels as a vector register has numbers: 8 with AVX2, 16 with AVX-512. The constants are
nanoseconds on one machine with AVX2. ``benchmarks/fit_costs.py`` fitted them to measurements of
``benchmarks/grid.py``. Only ratios of costs are compared, and these are similar on other machines.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from typing import TypeAlias

from fx_passes.costs.site_sizes import Sizes

Work: TypeAlias = Counter[str]

# Elements beyond which a tensor does not fit the caches, and costs the way to memory as well.
_CACHED = 1 << 19

NANOSECONDS: dict[str, float] = {
    "call": 120.0,
    "call_matrix": 380.0,
    "copy": 0.24,
    "dense": 0.23,
    "dense_row": 71.0,
    "depthwise": 0.48,
    "depthwise_place": 3.1,
    "depthwise_row": 1.0,
    "direct": 0.12,
    "direct_load": 0.3,
    "direct_place": 1.3,
    "direct_row": 10.0,
    "gather": 0.11,
    "gather_row": 19.0,
    "gather_strided": 0.5,
    "interleave": 0.88,
    "memory": 0.31,
    "multiply": 0.027,
    "multiply_matrix": 0.035,
    "multiply_packed": 0.023,
    "node": 890.0,
    "scatter": 0.6,
    "run": 13000.0,
}


def nanoseconds(work: Work) -> float:
    """The time of ``work`` in a session of its own."""
    return NANOSECONDS["run"] + sum(NANOSECONDS[name] * count for name, count in work.items())


def nodes(count: int) -> Work:
    """``count`` nodes that move nothing."""
    return Counter(node=count)


def moved(elements: int, how: str = "copy") -> Work:
    """One node that writes so many elements somewhere else; ``how``: ``copy`` or ``interleave``."""
    return Counter({how: elements, "node": 1}) + beyond_cache(elements)


def times(work: Work, count: int) -> Work:
    """``work``, done so often."""
    return Counter({name: count * amount for name, amount in work.items()})


def beyond_cache(elements: int) -> Work:
    """The extra cost of writing so many elements if they do not fit the caches."""
    return Counter(memory=max(elements - _CACHED, 0))


def up_to(count: int, multiple: int) -> int:
    """``count``, rounded up to a multiple of ``block``."""
    return -(-count // multiple) * multiple


def depthwise(images: int, channels: int, out: tuple[int, int], taps: tuple[int, int], block: int) -> Work:
    """One channel a group, on a tensor that is in blocks of channels already."""
    places = images * up_to(channels, block) // block * out[0] * out[1]
    rows = places // max(out[1], 1) * taps[0]
    work: Work = Counter(
        depthwise=places * taps[0] * taps[1], depthwise_place=places, depthwise_row=rows, node=1
    )
    return work + beyond_cache(places * block)


def one_to_many(
    images: int, channels: tuple[int, int], out: tuple[int, int], taps: tuple[int, int], block: int
) -> Work:
    """Dense, from few channels to blocks of channels. Four blocks share what is loaded of the input."""
    few, many = channels
    blocks = up_to(many, block) // block
    places, loads = images * blocks * out[0] * out[1], images * -(-blocks // 4) * out[0]
    products = few * taps[0] * taps[1]
    work: Work = Counter(
        direct=places * products,
        direct_load=loads * out[1] * products,
        direct_place=places,
        direct_row=loads * taps[0] * few,
        node=1,
    )
    return work + beyond_cache(places * block)


def dense(
    images: int, channels: tuple[int, int], out: tuple[int, int], taps: tuple[int, int], block: int
) -> Work:
    """Dense, from blocks of channels to blocks of channels."""
    places = images * up_to(channels[1], block) // block * out[0] * out[1]
    products = up_to(channels[0], block) * taps[0] * taps[1]
    work: Work = Counter(dense=places * products, dense_row=places // max(out[1], 1) * taps[0], node=1)
    return work + beyond_cache(places * block)


def looped(calls: int, channels: tuple[int, int], out: int, taps: int, strided: bool) -> Work:
    """For each group of each item: columns of ``taps`` samples for each output, and a product with them."""
    few, many = channels
    gathered = calls * out * taps * few if taps > 1 else 0
    work: Work = Counter(
        multiply=calls * out * taps * few * up_to(many, 4),
        gather_strided=gathered * strided,
        gather=gathered * (not strided),
        gather_row=calls * taps * few,
        call=calls,
    )
    return work + moved(calls * out * many)


def scattered(site: Sizes, images: int, groups: int, rows: int, columns: int) -> Work:
    """A product with every tap for each input sample, added to the output at its place."""
    taps = site.depth.taps * site.height.taps * site.width.taps
    samples, calls = site.depths[0] * site.inputs[0] * site.inputs[1], images * groups
    out = calls * rows * site.depths[1] * site.outputs[0] * site.outputs[1]
    work: Work = Counter(
        multiply_packed=calls * samples * taps * rows * columns,
        scatter=calls * samples * taps * rows,
        call=calls,
    )
    return work + moved(out)


def convolution(
    site: Sizes, images: int, groups: int, channels: tuple[int, int], block: int, *, flat: bool, chain: bool
) -> Work:
    """The convolution of a site, transposed or not, with other groups.

    Args:
        images, groups: batch items and groups.
        channels: of a group, (in, out).
        flat: computed in two dimensions, even if the site has one.
        chain: the neighbours use blocks of channels, so that nothing is reordered.
    """
    few, many = channels
    if site.up > 1:
        return scattered(site, images, groups, many, few)
    # Taps in the padding are skipped.
    taps = min(site.height.taps, site.inputs[0]), min(site.width.taps, site.inputs[1])
    out = site.outputs
    read, written = (images * groups * n * math.prod(size) for n, size in ((few, site.inputs), (many, out)))
    pad: Work = Counter()
    if site.padded:
        pad, chain = moved(read * site.depths[0]), False
    if flat and groups == 1 and few < block:
        return (
            pad + one_to_many(images, channels, out, taps, block) + (Counter() if chain else moved(written))
        )
    blocked = flat and few % 4 == 0 and groups == 1
    if flat and groups > 1 and groups % 4 == 0 and channels == (1, 1):
        work = depthwise(images, groups, out, taps, block)
        read, written = (n * up_to(groups, block) // groups for n in (read, written))
    elif blocked or (flat and groups > 1 and few % block == 0 and many % block == 0):
        work = dense(images * groups, channels, out, taps, block)
    else:
        places, products = math.prod(out) * site.depths[1], math.prod(taps) * site.depth.taps
        return pad + looped(images * groups, channels, places, products, site.width.down > 1)
    return pad + work + (Counter() if chain else moved(read) + moved(written))


def original(site: Sizes, block: int, chain: bool) -> Work:
    """The convolution as the model has it."""
    if site.stuffed:
        axes = site.depth, site.height, site.width
        depth, height, width = (replace(axis, up=1) for axis in axes)
        inputs = site.inputs[0] * site.height.up, site.inputs[1] * site.width.up
        depths = site.depths[0] * site.depth.up, site.depths[1]
        site = replace(
            site, depth=depth, height=height, width=width, depths=depths, inputs=inputs, stuffed=False
        )
        return moved(site.read) + original(site, block, chain=False)
    flat = site.dim == 2
    if site.dense:
        channels = site.groups * site.columns, site.groups * site.rows
        return convolution(site, site.items, 1, channels, block, flat=flat, chain=chain)
    channels = site.columns, site.rows
    return convolution(site, site.items, site.groups, channels, block, flat=flat, chain=chain)


def takes_blocks(site: Sizes, block: int) -> bool:
    """Whether the original is part of a chain of convolutions that use blocks of channels."""
    if site.dim != 2 or site.up > 1 or site.padded:
        return False
    if site.dense:
        return site.groups * site.columns >= block and site.groups * site.columns % 4 == 0
    return site.groups % 4 == 0 and site.rows == site.columns == 1
