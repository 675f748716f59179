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

from export.read_onnx.model import attribute

_aten = torch.ops.aten
# No axis is as long as this.
_MOST = 1 << 31


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

    @property
    def full(self) -> tuple[Any, ...]:
        """What follows input, weight and bias in ``aten.convolution``, which computes both kinds."""
        if len(self.arguments) == 4:
            stride, padding, dilation, groups = self.arguments
            return (stride, padding, dilation, False, [0] * len(stride), groups)
        stride, padding, more, groups, dilation = self.arguments
        return (stride, padding, dilation, True, more, groups)


def convolution_of(
    node: NodeProto, weight: Sequence[int], given: Sequence[int | str | None] | None
) -> Convolution | None:
    """The node in the terms of torch; None if it has no such form, or needs sizes that are not known.

    Args:
        weight: the shape of the weight.
        given: the shape of the input, as far as it is known.
    """
    dim = len(weight) - 2
    for name in ("strides", "dilations", "pads", "output_padding", "output_shape"):
        if any(not -_MOST < number < _MOST for number in attribute(node, name, [])):
            raise ValueError(f"{name} of convolution `{node.output[0]}` are out of range")
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
        total = (-(-size // stride) - 1) * stride + span + 1 - size
        if total < -2:
            return None  # onnxruntime then skips the first numbers, and other runtimes do not
        totals.append(max(0, total))
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
    cuts = _cuts(node, sizes, strides, spans, extra)
    if cuts is None:
        return None
    padding, more = [0] * dim, [0] * dim
    back = []
    for axis, ((low, high), size) in enumerate(zip(cuts, sizes, strict=True)):
        # torch cuts the same off both sides, and adds again behind; in a file, that is less than a stride.
        rest = extra[axis] - high
        if 0 <= low + rest < strides[axis]:
            padding[axis], more[axis] = low, low + rest
        elif size is None:
            return None
        else:
            more[axis] = max(0, rest)
            back.append((axis + 2, low, strides[axis] * (size - 1) + spans[axis] + 1 + rest))
    op = getattr(_aten, f"conv_transpose{dim}d")
    op = op.default if dim == 1 else op.input
    return Convolution(op, (), (strides, padding, more, group, dilations), tuple(back))


def _cuts(
    node: NodeProto,
    sizes: Sequence[int | None],
    strides: Sequence[int],
    spans: Sequence[int],
    extra: Sequence[int],
) -> list[tuple[int, int]] | None:
    """How much is cut off in front of each axis, and behind it. A negative number is added."""
    dim = len(strides)
    wanted = attribute(node, "output_shape")
    mode = attribute(node, "auto_pad", "NOTSET")
    if wanted is not None:
        known = [size for size in sizes if size is not None]
        if len(known) < dim:
            return None
        shapes = zip(known, list(wanted)[-dim:], strides, spans, extra, strict=True)
        totals = [step * (n - 1) + span + 1 + more - out for n, out, step, span, more in shapes]
    elif mode in ("NOTSET", "VALID"):
        pads = list(attribute(node, "pads", [0] * 2 * dim)) if mode == "NOTSET" else [0] * 2 * dim
        return list(zip(pads[:dim], pads[dim:], strict=True))
    else:  # as many outputs as inputs times the stride, or fewer if there are not so many
        totals = [max(0, span + 1 + n - step) for step, span, n in zip(strides, spans, extra, strict=True)]
    # The specification: only SAME_UPPER cuts the larger part behind.
    upper = mode == "SAME_UPPER"
    front = [max(0, total // 2 if upper else total - total // 2) for total in totals]
    return [(low, total - low) for low, total in zip(front, totals, strict=True)]
