"""The shapes that operators of torch give for open sizes, as formulas that hold for every size.

torch itself decides by an example where an operator treats short and long inputs in another way, and its
formula then holds for one of them. Here, such a size is not known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.fx import Node

# A size that has no formula.
Unknown = None
_aten = torch.ops.aten
# From here on, a bound says that a slice goes to the end.
_END = (1 << 31) - 1


def shape_after(node: Node, shape: Sequence[Any]) -> list[Any]:
    """The shape of what ``node`` gives for an input of ``shape``; None for a size that has no formula.

    Args:
        node: a call of an ATen operator that keeps the rank of its first argument, or states its shape.
        shape: sizes as numbers or symbols.
    """
    formula = _FORMULAS.get(node.target)
    if formula is None:
        return [Unknown] * len(shape)
    return formula(list(shape), *node.args[1:])


def _same(shape: list[Any], *_: Any) -> list[Any]:
    return shape


def _pad(shape: list[Any], amounts: Sequence[int], *_: Any) -> list[Any]:
    for place in range(len(amounts) // 2):  # the last axis comes first
        shape[-1 - place] = shape[-1 - place] + sum(amounts[2 * place : 2 * place + 2])
    return shape


def _slice(shape: list[Any], dim: int, start: int | None, end: int | None, step: int = 1) -> list[Any]:
    size, start = shape[dim], start or 0
    if isinstance(size, int):
        shape[dim] = len(range(*slice(start, end, step).indices(size)))
    elif start < 0 or (end is not None and 0 <= end < _END):
        shape[dim] = Unknown  # a bound that only some sizes reach
    else:
        last = size + end if end is not None and end < 0 else size
        shape[dim] = (last - start + step - 1) // step
    return shape


def _permute(shape: list[Any], order: Sequence[int]) -> list[Any]:
    return [shape[place] for place in order]


def _stated(shape: list[Any], wanted: Sequence[Any]) -> list[Any]:
    return list(wanted)


def _conv(
    shape: list[Any],
    weight: Node,
    bias: Any,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> list[Any]:
    kernel = weight.meta["val"].shape
    axes = zip(shape[2:], kernel[2:], stride, padding, dilation, strict=True)
    sizes = ((n + 2 * pad - (taps - 1) * step - 1) // by + 1 for n, taps, by, pad, step in axes)
    return [shape[0], kernel[0], *sizes]


def _transposed(
    shape: list[Any],
    weight: Node,
    bias: Any,
    stride: Sequence[int],
    padding: Sequence[int],
    extra: Sequence[int],
    groups: int,
    dilation: Sequence[int],
) -> list[Any]:
    kernel = weight.meta["val"].shape
    axes = zip(shape[2:], kernel[2:], stride, padding, extra, dilation, strict=True)
    sizes = ((n - 1) * by - 2 * pad + (taps - 1) * step + more + 1 for n, taps, by, pad, more, step in axes)
    return [shape[0], kernel[1] * groups, *sizes]


_FORMULAS: dict[Any, Callable[..., list[Any]]] = {
    _aten.alias.default: _same,
    _aten.mul.Tensor: _same,
    _aten.constant_pad_nd.default: _pad,
    **{
        getattr(_aten, f"{kind}_pad{dim}d").default: _pad
        for kind in ("reflection", "replication")
        for dim in (1, 2, 3)
    },
    _aten.slice.Tensor: _slice,
    _aten.permute.default: _permute,
    _aten.reshape.default: _stated,
    **dict.fromkeys((_aten.conv1d.default, _aten.conv2d.default, _aten.conv3d.default), _conv),
    **dict.fromkeys(
        (_aten.conv_transpose1d.default, _aten.conv_transpose2d.input, _aten.conv_transpose3d.input),
        _transposed,
    ),
}
