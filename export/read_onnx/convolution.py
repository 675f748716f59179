"""Conv and ConvTranspose of ONNX as ATen calls.

ONNX pads each side by its own amount, and can state the shape of the output instead. torch cannot: there, a
Pad stands in front of the convolution, or a Slice behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from onnx import NodeProto

from export.read_onnx.movement import attribute

_aten = torch.ops.aten


@dataclass(frozen=True)
class Convolution:
    """A convolution node in the terms of torch.

    Args:
        op: the ATen operator.
        front: amounts of zeros in front of and behind each spatial axis, added before; last axis first.
        arguments: what follows input, weight and bias.
        back: (axis, start, end) of the slices of the output.
    """

    op: Any
    front: tuple[int, ...]
    arguments: tuple[Any, ...]
    back: tuple[tuple[int, int, int], ...] = ()


def convolution_of(
    node: NodeProto, weight: Sequence[int], given: Sequence[int | str | None] | None
) -> Convolution | None:
    """The node in the terms of torch; None if its padding depends on sizes that are not known.

    Args:
        weight: the shape of the weight.
        given: the shape of the input, as far as it is known.
    """
    dim = len(weight) - 2
    sizes = given[2:] if given is not None else [None] * dim
    known = [size if isinstance(size, int) else None for size in sizes]
    strides = attribute(node, "strides", [1] * dim)
    dilations = attribute(node, "dilations", [1] * dim)
    spans = [(taps - 1) * step for taps, step in zip(weight[2:], dilations, strict=True)]
    group = attribute(node, "group", 1)
    if node.op_type == "ConvTranspose":
        return _transposed(node, known, list(strides), list(dilations), spans, group)
    pads = _pads(node, known, strides, spans)
    if pads is None:
        return None
    low, high = pads[:dim], pads[dim:]
    op = getattr(_aten, f"conv{dim}d").default
    if low == high:
        return Convolution(op, (), (list(strides), low, list(dilations), group))
    front = tuple(n for pair in reversed(list(zip(low, high, strict=True))) for n in pair)
    return Convolution(op, front, (list(strides), [0] * dim, list(dilations), group))


def _pads(
    node: NodeProto, sizes: Sequence[int | None], strides: Sequence[int], spans: Sequence[int]
) -> list[int] | None:
    """Zeros in front of each axis, then behind each."""
    mode = attribute(node, "auto_pad", "NOTSET")
    if mode == "NOTSET":
        return list(attribute(node, "pads", [0] * 2 * len(spans)))
    if mode == "VALID":
        return [0] * 2 * len(spans)
    totals = []
    for size, stride, span in zip(sizes, strides, spans, strict=True):
        if size is None:
            if stride != 1:
                return None
            size = 1  # with a stride of 1, the padding does not depend on the size
        totals.append(max(0, (-(-size // stride) - 1) * stride + span + 1 - size))
    smaller = [total // 2 for total in totals]
    larger = [total - part for total, part in zip(totals, smaller, strict=True)]
    return [*smaller, *larger] if mode == "SAME_UPPER" else [*larger, *smaller]


def _transposed(
    node: NodeProto,
    sizes: Sequence[int | None],
    strides: list[int],
    dilations: list[int],
    spans: list[int],
    group: int,
) -> Convolution | None:
    dim = len(strides)
    extra = list(attribute(node, "output_padding", [0] * dim))
    wanted = attribute(node, "output_shape")
    mode = attribute(node, "auto_pad", "NOTSET")
    if wanted is None and mode in ("NOTSET", "VALID"):
        pads = list(attribute(node, "pads", [0] * 2 * dim)) if mode == "NOTSET" else [0] * 2 * dim
    else:
        if wanted is None:
            wanted = [None if n is None else n * s for n, s in zip(sizes, strides, strict=True)]
        wanted = list(wanted)[-dim:]
        total = _pads_to(sizes, wanted, strides, spans, extra, upper=mode == "SAME_UPPER")
        if total is None:
            return None
        pads = total
    low, high = pads[:dim], pads[dim:]
    op = getattr(_aten, f"conv_transpose{dim}d")
    op = op.default if dim == 1 else op.input
    if low == high and all(e < max(s, d) for e, s, d in zip(extra, strides, dilations, strict=True)):
        return Convolution(op, (), (strides, low, extra, group, dilations))
    return _cut(op, sizes, (strides, low, high, extra, group, dilations), spans)


def _pads_to(
    sizes: Sequence[int | None],
    wanted: Sequence[int | None],
    strides: Sequence[int],
    spans: Sequence[int],
    extra: Sequence[int],
    *,
    upper: bool,
) -> list[int] | None:
    """How much to cut in front of each axis, then behind each, to get the ``wanted`` sizes."""
    totals = []
    for size, out, stride, span, more in zip(sizes, wanted, strides, spans, extra, strict=True):
        if size is None or out is None:
            return None
        totals.append(stride * (size - 1) + more + span + 1 - out)
    if any(total < 0 for total in totals):
        return None
    halves = [total // 2 for total in totals]
    rests = [total - half for total, half in zip(totals, halves, strict=True)]
    # The specification: only SAME_UPPER cuts the larger part behind.
    return [*halves, *rests] if upper else [*rests, *halves]


def _cut(
    op: Any, sizes: Sequence[int | None], arguments: tuple[Any, ...], spans: Sequence[int]
) -> Convolution | None:
    """The whole output, and slices behind it."""
    strides, low, high, extra, group, dilations = arguments
    back = []
    for axis, size in enumerate(sizes):
        if size is None or extra[axis] > high[axis]:
            return None
        end = strides[axis] * (size - 1) + spans[axis] + 1 - high[axis] + extra[axis]
        back.append((axis + 2, low[axis], end))
    none = [0] * len(strides)
    return Convolution(op, (), (strides, none, none, group, dilations), tuple(back))
