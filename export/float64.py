"""A model in float64, though its weights and its own code say float32; and with rounding errors put in.

``Float64`` is a mode: within it every operator of torch computes in float64. Narrower tensors are widened
where they are used, casts and new tensors of a narrower type become float64, and the model is told that its
numbers are float32 as ever. The tensors of the model are neither converted nor written to: what a model
writes goes into the wide copy, which lasts as long as the mode.

**Rounding, put in on purpose** (Monte Carlo arithmetic, D. S. Parker 1997). With ``level > 0`` every result
``z`` of an operator that rounds becomes

    z + level * (unit * magnitude + tiny) * (s + t) / 2        s, t random signs

``unit`` is half a unit in the last place of the narrowest type met (2^-24 for float32). ``tiny`` is the
smallest number of that type: what underflows is off by as much. An operator on elements has magnitude |z|.
A sum of n terms (convolutions, matrix products, sums, means) in *any* order is off by more than
``level * sqrt(n) * unit * sum |term|`` with a small probability (N. J. Higham and T. Mary 2019, theorem 2.4).
That is reached where signs have an order, as in a derivative. Where many channels are mixed they have none,
and partial sums are as small as sqrt(n) terms.
So the noise of a convolution of k taps and m channels to mix is

    level * unit * (max(1, sqrt(k / m)) * sum |term| + sqrt(k m) * |z|)

and with k = 1 that of other sums. It is as large as what another order of summation, another processor or a
lowering can do, and it passes through the rest of the model as such an error would. ``s`` is drawn for each
element, as rounding errors of unlike numbers are; ``t`` once for each operator, as those of like numbers are
(an even picture), which a mean does not average out.

A normalisation subtracts a mean that is off by what a sum is off: sqrt(n) * unit * |mean| over the deviation.

What float32 computes exactly gets no noise: a result that fits into float32, and a sum all of whose terms
are multiples of one power of two, of which it holds fewer than 2^24. Pictures of integers under binomial
kernels stay exact.

**Decisions.** A comparison, a rounding to integers, a sort: where their input is a hair off, their result
jumps. ``decisions`` are their results in order. A second run can be held to those of the first, which shows
what rounding does between two jumps, or be left free, which shows whether there are any within reach.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

WIDE = {
    torch.float16: torch.float64,
    torch.bfloat16: torch.float64,
    torch.float32: torch.float64,
    torch.complex32: torch.complex128,
    torch.complex64: torch.complex128,
}
_NARROW = {torch.float64: torch.float32, torch.complex128: torch.complex64}
# Noise below this is lost in the rounding of float64 itself.
_LEAST_UNIT = 2.0**-40
# The smallest number above 0, by the unit: what underflows is off by as much.
_SMALLEST = {2.0**-24: 2.0**-149, 2.0**-11: 2.0**-24, 2.0**-8: 2.0**-133}
_SUMS = frozenset("convolution mm bmm addmm baddbmm mv dot sum mean cumsum avg_pool1d avg_pool2d".split())
_SUMS_OF_WEIGHTS = frozenset(["convolution"])
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
_ROUNDINGS = frozenset(
    "round round_ floor floor_ ceil ceil_ trunc trunc_ sign sign_ heaviside floor_divide".split()
)
_CHECKS = frozenset(["_assert_tensor_metadata"])


class Float64(TorchDispatchMode):
    """Within it, models compute in float64, see the docstring of this file.

    Args:
        level: how many times as large as a rounding error the noise is; 0: none; negative: mirrored.
        seed: of the random signs.
        unit: of rounding, from the run without noise.
        decisions: of the run without noise, or None where they are not to be compared.
        held: whether this run decides as that one did.

    Example:
        >>> with Float64(), torch.no_grad():
        ...     y = torch.rand(3).to(torch.float32) + torch.ones(3)
        >>> y.dtype
        torch.float64
    """

    def __init__(
        self,
        level: float = 0.0,
        *,
        seed: int = 0,
        unit: float | None = None,
        decisions: Sequence[Tensor] | None = None,
        held: bool = False,
    ) -> None:
        super().__init__()
        self.level, self.held = level, held
        self.unit = 2.0**-53 if unit is None else unit
        self.random = torch.Generator().manual_seed(seed)
        self.decisions: list[Tensor] = []
        self.clean = decisions
        self.flipped = False
        self.largest: float | None = None  # sum of |terms| of a convolution, while it is asked for
        self.measured = 0.0
        self._copies: dict[int, tuple[Tensor, Tensor]] = {}
        self._names = _Function(self)

    def __enter__(self) -> Float64:
        super().__enter__()
        self._names.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._names.__exit__(*error)
        super().__exit__(*error)

    def forget(self) -> None:
        """Let go of the wide copies."""
        self._copies.clear()

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Within it, ``measured`` becomes the largest sum of |terms| of any convolution."""
        self.largest = 0.0
        yield
        self.measured, self.largest = self.largest, None

    def wide(self, value: Any) -> Any:
        """A tensor in float64, the same object each time; other values, and wide tensors, as they are."""
        if not isinstance(value, Tensor):
            return WIDE.get(value, value) if isinstance(value, torch.dtype) else value
        if value.dtype not in WIDE:
            return value
        if id(value) not in self._copies:
            self.unit = max(self.unit, torch.finfo(value.dtype).eps / 2)
            with torch._C._DisableTorchDispatch(), torch._C.DisableTorchFunction():
                copy = value.detach().to(WIDE[value.dtype])
            self._copies[id(value)] = value, copy
        return self._copies[id(value)][1]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with torch._C.DisableTorchFunction():  # here, types are what they are
            return self._run(func, args, kwargs or {})

    def _run(self, func: Any, args: Any, kwargs: Any) -> Any:
        name = func._schema.name.partition("::")[2]
        if name in _CHECKS:
            return None
        args, kwargs = pytree.tree_map(self.wide, (args, kwargs))
        result = pytree.tree_map(self.wide, func(*args, **kwargs))
        inputs = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if not any(tensor.dtype.is_floating_point or tensor.dtype.is_complex for tensor in inputs):
            return result
        if name in _SUMS_OF_WEIGHTS and self.largest is not None:
            magnitude = _absolute(func, args, kwargs)
            self.largest = max(self.largest, float(magnitude.abs().max()) if magnitude.numel() else 0.0)
        if self.level and name not in _EXACT and not func.is_view:
            self._disturb(func, name, args, kwargs, result)
        return self._decide(name, result)

    def _disturb(self, func: Any, name: str, args: Any, kwargs: Any, result: Any) -> None:
        """Put noise into the results of an operator, in place."""
        unit, tiny = max(self.unit, _LEAST_UNIT), _SMALLEST.get(self.unit, 0.0)
        for z in pytree.tree_leaves(result):
            if not isinstance(z, Tensor) or not z.numel():
                continue
            if z.dtype.is_complex:
                z = torch.view_as_real(z)
            if not z.dtype.is_floating_point:
                continue
            if name in _SUMS:
                terms = _terms(name, args, z)
                magnitude = _absolute(func, args, kwargs)
                if _exact_sum(args, magnitude, self.unit):
                    continue
                spread = magnitude * _order(name, args) + z.abs() * math.sqrt(terms)
                scale = spread * unit + math.sqrt(terms) * tiny
            else:
                scale = torch.where(_fits(z, self.unit), 0.0, z.abs() * unit + tiny)
                scale = scale + unit * _mean_error(name, args, result)
            scale = torch.where(scale.isfinite(), scale, 0.0)
            signs = torch.randint(0, 2, z.shape, generator=self.random, dtype=torch.int8).double()
            common = float(torch.randint(0, 2, (), generator=self.random))
            z.add_(scale * (signs + (common - 1.0)), alpha=self.level)

    def _decide(self, name: str, result: Any) -> Any:
        """Note what is discrete in ``result``; where this run is held, replace it by what the first noted."""
        if "max_pool" in name or name in ("_local_scalar_dense", "bernoulli"):
            return result

        def one(leaf: Any) -> Any:
            if not isinstance(leaf, Tensor):
                return leaf
            if name not in _ROUNDINGS and (leaf.dtype.is_floating_point or leaf.dtype.is_complex):
                return leaf
            at = len(self.decisions)
            if self.clean is None:
                self.decisions.append(leaf.clone())
                return leaf
            self.decisions.append(leaf)
            first = self.clean[at] if at < len(self.clean) else None
            if first is None or first.shape != leaf.shape or first.dtype != leaf.dtype:
                self.flipped = True
                return leaf
            if torch.equal(first, leaf):
                return leaf
            self.flipped = True
            if not self.held:
                return leaf
            return leaf.copy_(first) if name.endswith("_") else first.clone()

        return pytree.tree_map(one, result)


class _Function(TorchFunctionMode):
    """Widens before operators are taken apart, which checks types, and tells the model what it expects."""

    def __init__(self, mode: Float64) -> None:
        super().__init__()
        self.mode = mode

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func == _DTYPE:
            real = func(*args)
            return _NARROW.get(real, real)
        if getattr(func, "__name__", "") in _OF_THE_OBJECT:
            return func(*args, **(kwargs or {}))
        args, kwargs = pytree.tree_map(self.mode.wide, (args, kwargs or {}))
        return func(*args, **kwargs)


_DTYPE = torch.Tensor.dtype.__get__  # type: ignore[attr-defined]
# Attributes of a tensor, not of its numbers.
_OF_THE_OBJECT = frozenset(["__get__", "__set__", "requires_grad_", "register_hook", "data_ptr", "_is_view"])


def _absolute(func: Any, args: Any, kwargs: Any) -> Tensor:
    """sum |term|: the operator on the magnitudes of what it is given."""

    def magnitude(leaf: Any) -> Any:
        return leaf.abs() if isinstance(leaf, Tensor) and leaf.dtype.is_floating_point else leaf

    result: Tensor = func(*pytree.tree_map(magnitude, args), **pytree.tree_map(magnitude, kwargs))
    return result


def _terms(name: str, args: Any, z: Tensor) -> float:
    """How many terms each element of ``z`` is a sum of."""
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
    """How far a normalisation is off by what is off of the mean that it subtracts, in units; 0 for others."""
    if "norm" not in name or not isinstance(result, tuple) or len(result) < 3 or not result[1].numel():
        return 0.0
    mean, scale = result[1:3]
    weight = args[1] if len(args) > 1 and isinstance(args[1], Tensor) else None
    largest = float(weight.abs().max()) if weight is not None and weight.numel() else 1.0
    terms = max(1.0, args[0].numel() / mean.numel())
    return math.sqrt(terms) * float((mean * scale).abs().max()) * largest


def _order(name: str, args: Any) -> float:
    """How much larger than sum |term| the error is for what an order of summation does; see the docstring."""
    if name != "convolution":
        return 1.0
    weight, transposed, groups = args[1], args[6], args[8]
    mixed = weight.shape[0] // groups if transposed else weight.shape[1]
    return max(1.0, math.sqrt(math.prod(weight.shape[2:]) / max(1, mixed)))


def _fits(z: Tensor, unit: float) -> Tensor:
    """Which elements have no more bits than the type of rounding ``unit`` holds."""
    mantissa, _ = torch.frexp(z)
    scaled = mantissa / unit
    fits = scaled == scaled.round()
    if unit in _SMALLEST:
        scaled = z / _SMALLEST[unit]
        fits &= (scaled == scaled.round()) | ~scaled.isfinite()
    return fits


def _exact_sum(args: Any, magnitude: Tensor, unit: float) -> bool:
    """Whether all terms are multiples of one power of two, and all sums of them hold fewer than 1 / unit."""
    if not bool(magnitude.isfinite().all()):
        return False
    step = 1.0
    for leaf in args:
        if isinstance(leaf, Tensor) and leaf.dtype.is_floating_point:
            step *= _step(leaf)
    return step >= _SMALLEST.get(unit, 0.0) and float(magnitude.max()) <= step / unit


def _step(x: Tensor) -> float:
    """The largest power of two that all elements are multiples of; at most 1."""
    x = x[x != 0]
    if not x.numel():
        return 1.0
    mantissa, exponent = torch.frexp(x)
    whole = (mantissa * 2.0**53).long()
    last = (whole & -whole).double()
    return min(1.0, float((last * torch.exp2(exponent.double() - 53)).min()))
