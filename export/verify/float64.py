"""Runs a model in float64, although its weights and its code say float32; on request with rounding errors.

``Float64`` is a mode. Within it every operator of torch computes in float64. Narrower tensors are widened
where they are used. Casts to a narrower type, and new tensors of one, become float64. If the model asks for a
type, it is told float32 as before. The tensors of the model are not converted and not written to: the model
writes to the wide copy, which lasts as long as the mode.

**Rounding errors on purpose.** With ``level > 0`` the result of every operator that rounds becomes

    z + level * scale * (s + t) / 2        s, t random signs

``scale`` is how far rounding can move it (``rounding_noise.py``). ``s`` is drawn for each element: rounding
errors of different numbers are like that. ``t`` is drawn once for each operator: rounding errors of equal
numbers (an even picture) are like that, and a mean does not average them out. The noise passes through the
rest of the model, as a rounding error would.

**Decisions.** A comparison, a rounding to integers, a sort: their results jump if their input changes a
little. ``decisions`` are these results in order. A second run can be held to the decisions of the first. It
shows what rounding does between two jumps. A run that is free shows whether rounding can cause a jump.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from export.verify.convolution64 import compute
from export.verify.rounding_noise import magnitude, rounds, scale_of
from fx_passes.graph.torch_internals import (
    DisableTorchDispatch,
    DisableTorchFunction,
    TorchDispatchMode,
    pytree,
)

WIDE = {
    torch.float16: torch.float64,
    torch.bfloat16: torch.float64,
    torch.float32: torch.float64,
    torch.complex32: torch.complex128,
    torch.complex64: torch.complex128,
}
_NARROW = {torch.float64: torch.float32, torch.complex128: torch.complex64}
_ROUNDINGS = frozenset(
    "round round_ floor floor_ ceil ceil_ trunc trunc_ sign sign_ heaviside floor_divide".split()
)
_CHECKS = frozenset(["_assert_tensor_metadata"])


class Float64(TorchDispatchMode):
    """Within it, models compute in float64; see the docstring of this file.

    Args:
        level: the size of the noise, in rounding errors. 0: no noise. Negative: mirrored.
        seed: the seed of the random signs.
        unit: the unit of rounding, from the run without noise. None: that of the narrowest type that is met.
        decisions: those of the run without noise. None: they are not compared.
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
        """Release the wide copies."""
        self._copies.clear()

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Within it, ``measured`` becomes the largest sum of |terms| of any convolution."""
        self.largest = 0.0
        yield
        self.measured, self.largest = self.largest, None

    def wide(self, value: Any) -> Any:
        """A tensor in float64, the same object each time, or a type that is wide. Other values and wide
        tensors are returned as they are."""
        dtype = value.dtype if isinstance(value, Tensor) else value
        if not isinstance(dtype, torch.dtype) or dtype not in WIDE:
            return value
        # A model may have no narrow tensors but those that it makes itself, of a type that it names.
        self.unit = max(self.unit, torch.finfo(dtype).eps / 2)
        if not isinstance(value, Tensor):
            return WIDE[dtype]
        if id(value) not in self._copies:
            with DisableTorchDispatch(), DisableTorchFunction():
                copy = value.detach().to(WIDE[value.dtype])
            self._copies[id(value)] = value, copy
        return self._copies[id(value)][1]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with DisableTorchFunction():  # here, types are not disguised
            return self._run(func, args, kwargs or {})

    def _run(self, func: Any, args: Any, kwargs: Any) -> Any:
        name = func.name().partition("::")[2].partition(".")[0]
        if name in _CHECKS:
            return None
        args, kwargs = pytree.tree_map(self.wide, (args, kwargs))
        result = pytree.tree_map(self.wide, compute(func, args, kwargs))
        inputs = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if not any(tensor.dtype.is_floating_point or tensor.dtype.is_complex for tensor in inputs):
            return result
        if name == "convolution" and self.largest is not None:
            size = magnitude(func, args, kwargs)
            self.largest = max(self.largest, float(size.abs().max()) if size.numel() else 0.0)
        if self.level and rounds(func, name):
            self._disturb(func, name, args, kwargs, result)
        return self._decide(name, result)

    def _disturb(self, func: Any, name: str, args: Any, kwargs: Any, result: Any) -> None:
        """Put noise into the results of an operator, in place."""
        for z in pytree.tree_leaves(result):
            if not isinstance(z, Tensor) or not z.numel():
                continue
            if z.dtype.is_complex:
                z = torch.view_as_real(z)
            if not z.dtype.is_floating_point:
                continue
            scale = scale_of(func, name, args, kwargs, result, z, self.unit)
            if scale is None:
                continue
            signs = torch.randint(0, 2, z.shape, generator=self.random, dtype=torch.int8).double()
            common = float(torch.randint(0, 2, (), generator=self.random))
            z.add_(scale * (signs + (common - 1.0)), alpha=self.level)

    def _decide(self, name: str, result: Any) -> Any:
        """Record the discrete parts of ``result``. If this run is held, replace them by what the first run
        recorded."""
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
    """Widens before operators are decomposed, which checks types, and tells the model the types that it
    expects."""

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
