"""Convolutions in float64, for the references.

torch computes a convolution in float64 group after group: it writes out all windows of a group, and takes a
matrix product with one row. That is slow with one channel in each group, and up to 50 times slower if another
process keeps a core busy, as all threads wait for each other after each group. Such a convolution is computed
here by its definition, one tap after the other:

    y[o] = sum_k w[k] x[stride o + dilation k - padding]              convolution
    y[stride i + dilation k - padding] += w[k] x[i]                   transposed

with all channels and positions at once.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

# With more outputs to a group, the matrix product of torch is faster.
_MOST_ROWS = 4
_ATEN = torch.ops.aten.convolution.default


def compute(func: Any, args: Sequence[Any], kwargs: Any) -> Any:
    """What an ATen operator gives for arguments in float64."""
    if func is _ATEN and len(args) == 9 and not kwargs:
        return convolution(*args)
    return func(*args, **kwargs)


def convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> Tensor:
    """``torch.ops.aten.convolution``, with the same arguments.

    Args:
        x: (N, C, *spatial). Any type but float64 goes to torch.
    """
    rows = weight.shape[1] if transposed else weight.shape[0] // groups
    channels = weight.shape[0] // groups if transposed else weight.shape[1]
    lists = (stride, padding, dilation, output_padding)
    full = all(len(numbers) == weight.ndim - 2 for numbers in lists) and x.ndim == weight.ndim
    if x.dtype != torch.float64 or x.is_mkldnn or not full or channels != 1 or rows > _MOST_ROWS:
        given = (x, weight, bias, stride, padding, dilation, transposed, output_padding, groups)
        return _ATEN(*given)  # type: ignore[no-any-return]
    taps = weight.reshape(groups, rows, *weight.shape[2:])
    if transposed:
        y = _spread(x, taps, stride, padding, dilation, output_padding)
    else:
        y = _gathered(x, taps, stride, padding, dilation)
    y = y.flatten(1, 2)
    return y if bias is None else y.add_(bias.reshape(-1, *[1] * (y.ndim - 2)))


def _gathered(
    x: Tensor, taps: Tensor, stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]
) -> Tensor:
    """(N, G, R, *spatial): the convolution."""
    kernel = taps.shape[2:]
    spans = [(k - 1) * d for k, d in zip(kernel, dilation, strict=True)]
    amounts = [amount for pad in reversed(padding) for amount in (pad, pad)]
    x = torch.constant_pad_nd(x, amounts) if any(amounts) else x
    sizes = [(n - span - 1) // s + 1 for n, span, s in zip(x.shape[2:], spans, stride, strict=True)]
    if min(sizes) < 1:
        raise ValueError(f"a kernel of {list(kernel)} taps is larger than its padded input {list(x.shape)}")
    y = x.new_zeros(x.shape[0], *taps.shape[:2], *sizes)
    for at in itertools.product(*map(range, kernel)):
        starts = [k * d for k, d in zip(at, dilation, strict=True)]
        y.addcmul_(_strided(x, starts, sizes, stride).unsqueeze(2), _tap(taps, at))
    return y


def _spread(
    x: Tensor,
    taps: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    output_padding: Sequence[int],
) -> Tensor:
    """(N, G, R, *spatial): the transposed convolution."""
    kernel, sizes = taps.shape[2:], x.shape[2:]
    steps = zip(sizes, kernel, stride, dilation, output_padding, strict=True)
    whole = [(n - 1) * s + (k - 1) * d + 1 + more for n, k, s, d, more in steps]
    y = x.new_zeros(x.shape[0], *taps.shape[:2], *whole)
    given = x.unsqueeze(2)
    for at in itertools.product(*map(range, kernel)):
        starts = [k * d for k, d in zip(at, dilation, strict=True)]
        _strided(y, starts, sizes, stride).addcmul_(given, _tap(taps, at))
    for axis, pad in enumerate(padding, start=3):
        y = y.narrow(axis, pad, y.shape[axis] - 2 * pad)
    return y


def _tap(taps: Tensor, at: tuple[int, ...]) -> Tensor:
    """(G, R, 1, ...): one tap of each kernel."""
    tap: Tensor = taps[(..., *at)]  # type: ignore[index]
    return tap.reshape(*taps.shape[:2], *[1] * len(at))


def _strided(x: Tensor, starts: Sequence[int], sizes: Sequence[int], stride: Sequence[int]) -> Tensor:
    """Every ``stride``-th element of the last axes, ``sizes`` of them."""
    last: tuple[Any, ...] = (...,)
    last += tuple(slice(a, a + n * step, step) for a, n, step in zip(starts, sizes, stride, strict=True))
    return x[last]
