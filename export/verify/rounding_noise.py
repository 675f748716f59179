"""How far rounding can move the result of one operator (Monte Carlo arithmetic, D. S. Parker 1997).

``float64.py`` puts noise of this size into results that are computed in float64:

    unit * magnitude + tiny

``unit`` is half a unit in the last place of the narrowest type met (2^-24 for float32). ``tiny`` is the
smallest number of that type: what underflows is off by as much. An operator on elements has magnitude |z|.
A sum of n terms (convolutions, matrix products, sums, means) in *any* order is off by more than
``sqrt(n) * unit * sum |term|`` with a small probability (N. J. Higham and T. Mary 2019, theorem 2.4).
That is reached where signs have an order, as in a derivative. Where many channels are mixed they have none,
and partial sums are as small as sqrt(n) terms.
So the noise of a convolution of k taps and m channels to mix is

    unit * (max(1, sqrt(k / m)) * sum |term| + sqrt(k m) * |z|)

and with k = 1 that of other sums. It is as large as what another order of summation, another processor or a
lowering can do.

A normalisation subtracts a mean that is off by what a sum is off: sqrt(n) * unit * |mean| over the deviation.

What float32 computes exactly gets no noise: a result that fits into float32, and a sum all of whose terms
are multiples of one power of two, of which it holds fewer than 2^24. Pictures of integers under binomial
kernels stay exact.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from export.verify.convolution64 import compute
from fx_passes.graph.torch_internals import pytree

# Noise below this is lost in the rounding of float64 itself.
_LEAST_UNIT = 2.0**-40
# The smallest number above 0, by the unit. The error of an underflow is as large.
_SMALLEST = {2.0**-24: 2.0**-149, 2.0**-11: 2.0**-24, 2.0**-8: 2.0**-133}
_SUMS = frozenset("convolution mm bmm addmm baddbmm mv dot sum mean cumsum avg_pool1d avg_pool2d".split())
# They give numbers that they were given, or that have few bits.
_EXACT = frozenset(
    """
    relu relu_ clamp clamp_ clamp_min clamp_max hardtanh threshold neg abs sgn maximum minimum max min
    amax amin where cat stack index index_select index_put index_put_ gather scatter scatter_ take
    masked_fill masked_fill_ masked_select clone copy copy_ _to_copy contiguous repeat flip roll
    constant_pad_nd reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d
    replication_pad3d sort topk max_pool2d max_pool2d_with_indices max_pool3d_with_indices slice_scatter
    select_scatter tril triu diag_embed fill fill_ zero_ zeros ones full empty new_zeros new_ones new_full
    new_empty zeros_like ones_like full_like empty_like scalar_tensor arange lift_fresh lift_fresh_copy
    _unsafe_index unfold im2col pixel_shuffle pixel_unshuffle round round_ floor floor_ ceil ceil_ trunc
    trunc_ sign sign_ heaviside nan_to_num isnan isinf real imag adaptive_max_pool2d upsample_nearest1d
    upsample_nearest2d upsample_nearest3d _local_scalar_dense
    """.split()
)


def rounds(func: Any, name: str) -> bool:
    """Whether the result of this operator may differ from the exact result for its inputs."""
    return name not in _EXACT and not func.is_view


def scale_of(
    func: Any, name: str, args: Any, kwargs: Any, result: Any, z: Tensor, unit: float
) -> Tensor | None:
    """How far rounding moves each element of ``z``, a tensor of ``result``. None: it moves nothing.

    Args:
        func, name, args, kwargs: the operator, its name without the namespace, its arguments in float64.
        result, z: what it gave, and the tensor of it that is looked at.
        unit: the unit of rounding in the type that the model is made for.
    """
    least, tiny = max(unit, _LEAST_UNIT), _SMALLEST.get(unit, 0.0)
    if name in _SUMS:
        terms, size = _terms(name, args, z), magnitude(func, args, kwargs)
        if _exact_sum(args, size, unit):
            return None
        scale = (size * _order(name, args) + z.abs() * math.sqrt(terms)) * least + math.sqrt(terms) * tiny
    else:
        scale = torch.where(_fits(z, unit), 0.0, z.abs() * least + tiny)
        scale = scale + least * _mean_error(name, args, result)
    return torch.where(scale.isfinite(), scale, 0.0)


def magnitude(func: Any, args: Any, kwargs: Any) -> Tensor:
    """sum |term|: the operator applied to the magnitudes of its arguments."""

    def absolute(leaf: Any) -> Any:
        return leaf.abs() if isinstance(leaf, Tensor) and leaf.dtype.is_floating_point else leaf

    result: Tensor = compute(func, pytree.tree_map(absolute, args), pytree.tree_map(absolute, kwargs))
    return result


def _terms(name: str, args: Any, z: Tensor) -> float:
    """How many terms each element of ``z`` sums."""
    tensors = [leaf for leaf in args if isinstance(leaf, Tensor)]
    if name == "convolution":
        weight, transposed, groups = args[1], args[6], args[8]
        return max(1.0, weight.numel() / (weight.shape[1] * groups if transposed else weight.shape[0]))
    if name in ("mm", "bmm", "mv", "dot"):
        return max(1, tensors[0].shape[-1])
    if name in ("addmm", "baddbmm"):
        return tensors[1].shape[-1] + 1
    if name == "cumsum":
        return max(1, tensors[0].shape[args[1]] if tensors[0].ndim else 1)
    if name.startswith("avg_pool"):
        return float(math.prod(args[1]))
    return max(1.0, tensors[0].numel() / z.numel())


def _mean_error(name: str, args: Any, result: Any) -> float:
    """The error of a normalization that comes from the error of the mean it subtracts, in units. 0 for other
    operators."""
    if "norm" not in name or not isinstance(result, tuple) or len(result) < 3 or not result[1].numel():
        return 0.0
    mean, scale = result[1:3]
    weight = args[1] if len(args) > 1 and isinstance(args[1], Tensor) else None
    largest = float(weight.abs().max()) if weight is not None and weight.numel() else 1.0
    terms = max(1.0, args[0].numel() / mean.numel())
    return math.sqrt(terms) * float((mean * scale).abs().max()) * largest


def _order(name: str, args: Any) -> float:
    """How much larger than sum |term| the error is, because of the order of summation; see the docstring."""
    if name != "convolution":
        return 1.0
    weight, transposed, groups = args[1], args[6], args[8]
    mixed = weight.shape[0] // groups if transposed else weight.shape[1]
    return max(1.0, math.sqrt(math.prod(weight.shape[2:]) / max(1, mixed)))


def _fits(z: Tensor, unit: float) -> Tensor:
    """Which elements have no more bits than the type with rounding ``unit`` holds."""
    mantissa, _ = torch.frexp(z)
    scaled = mantissa / unit
    fits = scaled == scaled.round()
    if unit in _SMALLEST:
        scaled = z / _SMALLEST[unit]
        fits &= (scaled == scaled.round()) | ~scaled.isfinite()
    return fits


def _exact_sum(args: Any, magnitude: Tensor, unit: float) -> bool:
    """Whether all terms are multiples of one power of two, and every sum holds fewer than 1 / unit of it."""
    if not bool(magnitude.isfinite().all()):
        return False
    step = 1.0
    for leaf in args:
        if isinstance(leaf, Tensor) and leaf.dtype.is_floating_point:
            step *= _step(leaf)
    return step >= _SMALLEST.get(unit, 0.0) and float(magnitude.max()) <= step / unit


def _step(x: Tensor) -> float:
    """The largest power of two, at most 1, that all elements are multiples of."""
    x = x[x != 0]
    if not x.numel():
        return 1.0
    mantissa, exponent = torch.frexp(x)
    whole = (mantissa * 2.0**53).long()
    last = (whole & -whole).double()
    return min(1.0, float((last * torch.exp2(exponent.double() - 53)).min()))
