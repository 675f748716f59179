"""A convolution of one kernel with what is around it, written as a model writes it and as a ``Resample``."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fx_passes.kernels.expand import expand_block_diagonal
from fx_passes.records import ConvGeometry
from fx_passes.resample.axes import Moved, Resample, absorb_after, absorb_before, resample_of


@dataclass(frozen=True)
class Case:
    """A convolution of one kernel with what is around it, as torch computes it and as a ``Resample``.

    Args:
        stuff: zeros stuffed into the input, front: how much of ``front_mode`` is then padded, keep: which of
            the outputs are kept (first, step, dropped at the end), each by axis; then the output is scaled.
        bias: ``"shared"`` by the groups, one for each ``"channel"``, or None.
        rank: of the kernel, 0 for any. Of three dimensions: a line along the depth times a plane of
            that rank.
        siblings: how often a model does it, on inputs that are here put together, a batch for each.
    """

    geometry: ConvGeometry
    batch: int
    rows: int
    columns: int
    sizes: tuple[int, ...]
    block_diagonal: bool = False
    bias: str | None = None
    rank: int = 0
    seed: int = 0
    stuff: tuple[int, ...] = ()
    front: tuple[tuple[int, int], ...] = ()
    front_mode: str = "zeros"
    keep: tuple[tuple[int, int, int], ...] = ()
    scale: float = 1.0
    siblings: int = 1

    @property
    def dim(self) -> int:
        return self.geometry.dim

    def kernel(self, dtype: torch.dtype, integers: bool) -> Tensor:
        """(rows, columns, *taps), in the order of a correlation; integers of a given rank are dyadic."""
        generator = torch.Generator().manual_seed(self.seed)
        shape = (self.rows, self.columns, *self.geometry.kernel)
        dyadic = torch.tensor([-4, -2, -1, 0, 1, 2, 4])

        def numbers(*size: int) -> Tensor:
            if not integers:
                return torch.randn(size, generator=generator, dtype=torch.float64)
            drawn = torch.randint(-3, 4, size, generator=generator)
            return (dyadic[drawn + 3] if self.rank else drawn).double()

        if self.rank and self.dim > 1:
            kh, kw = shape[-2:]
            lines = [(numbers(*shape[:2], kh, 1), numbers(*shape[:2], 1, kw)) for _ in range(self.rank)]
            plane = torch.stack([column * row for column, row in lines]).sum(0)
            if self.dim == 3:
                plane = numbers(*shape[:3], 1, 1) * plane.unsqueeze(2)
            return plane.to(dtype)
        return numbers(*shape).to(dtype)

    def input(self, dtype: torch.dtype, integers: bool) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed + 1)
        shape = (self.siblings * self.batch, self.geometry.groups * self.columns, *self.sizes)
        if integers:
            return torch.randint(-4, 5, shape, generator=generator).to(dtype)
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    def bias_of(self, dtype: torch.dtype) -> Tensor | None:
        if self.bias is None:
            return None
        count = self.rows * (1 if self.bias == "shared" else self.geometry.groups)
        return torch.arange(1, count + 1).to(dtype)

    def full(self, kernel: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Weight and bias as torch takes them."""
        groups, axes = self.geometry.groups, range(2, 2 + self.dim)
        block = kernel.transpose(0, 1).flip(*axes) if self.geometry.transposed else kernel
        weight = expand_block_diagonal(block, groups) if self.block_diagonal else torch.cat([block] * groups)
        if bias is not None and bias.numel() == self.rows:
            bias = torch.cat([bias] * groups)
        return weight.contiguous(), bias

    def run(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """What a model does that is written without sharing anything."""
        if self.stuff:
            for axis, up in zip(range(-self.dim, 0), self.stuff, strict=True):
                x = F.pad(x.unsqueeze(-1).movedim(-1, axis), (0, 0) * (-axis - 1) + (0, up - 1))
                x = x.flatten(axis - 1, axis)
        if self.front:
            x = F.pad(
                x, _pairs(self.front), mode="constant" if self.front_mode == "zeros" else self.front_mode
            )
        y = self._convolve(x, weight, bias)
        if self.keep:
            ends = zip(self.keep, y.shape[2:], strict=True)
            kept: Any = [slice(first, size - drop, step) for (first, step, drop), size in ends]
            y = y[(..., *kept)]
        return y if self.scale == 1.0 else y * self.scale

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        g, groups = self.geometry, 1 if self.block_diagonal else self.geometry.groups
        if g.transposed:
            conv: Any = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[self.dim - 1]
            return conv(x, weight, bias, g.stride, g.padding, g.output_padding, groups, g.dilation)
        conv = (F.conv1d, F.conv2d, F.conv3d)[self.dim - 1]
        padding: Any = g.padding
        if g.padding_mode != "zeros":
            x = F.pad(x, _pairs([(pad, pad) for pad in g.padding]), mode=g.padding_mode)
            padding = 0
        return conv(x, weight, bias, g.stride, padding, g.dilation, groups)

    def reference(self, x: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
        return self.run(x, *self.full(kernel, bias))

    def resample(self) -> Resample:
        """What the case does, composed as ``absorb`` composes it."""
        g, sizes, stuff = self.geometry, self.sizes, self.stuff or (1,) * self.dim
        front = self.front or ((0, 0),) * self.dim
        shape = (self.batch, g.groups * self.columns, *sizes)
        found = resample_of(g, g.groups, self.rows, self.columns, self.block_diagonal, (shape, shape))
        axes, outs = [], []
        for axis, size, up, (low, high), keep in zip(
            found.axes, sizes, stuff, front, self.keep or (None,) * self.dim, strict=True
        ):
            pad = (0, 0) if self.front_mode == "zeros" else (low, high)
            axis = absorb_before(axis, size, Moved(up, low, size * up + low + high, pad))
            count = axis.size(size)
            if keep is not None:
                first, step, drop = keep
                count = len(range(first, count - drop, step))
                axis = absorb_after(axis, size, first, step, max(count, 1))
            axes.append(axis)
            outs.append(count)
        mode = self.front_mode if self.front_mode != "zeros" else found.mode
        out_shape = (self.batch, g.groups * self.rows, *outs)
        return replace(found, axes=tuple(axes), mode=mode, out_shape=out_shape, scale=self.scale)


def _pairs(pads: Any) -> tuple[int, ...]:
    """(low, high) by axis, outermost first -> the argument of ``F.pad``."""
    return tuple(n for pair in reversed(pads) for n in pair)


def make(kernel: tuple[int, ...], sizes: tuple[int, ...], **other: Any) -> Case:
    """A case from what is special about it: three groups, a batch of two, stride 1 and so on else."""
    dim, transposed = len(kernel), other.pop("transposed", False)
    groups, rows, columns = (
        other.pop(key, value) for key, value in (("groups", 3), ("rows", 1), ("columns", 1))
    )

    def per_axis(name: str, value: int) -> Any:
        given = other.pop(name, value)
        return (given,) * dim if isinstance(given, int) else given

    stride, padding, dilation = per_axis("stride", 1), per_axis("padding", 0), per_axis("dilation", 1)
    extra, mode = per_axis("output_padding", 0), other.pop("padding_mode", "zeros")
    op = f"conv{'_transpose' if transposed else ''}{dim}d"
    channels = groups * columns, groups * rows
    geometry = ConvGeometry(op, *channels, groups, kernel, stride, padding, dilation, extra, mode)
    return Case(geometry, other.pop("batch", 2), rows, columns, sizes, **other)


Refused = tuple[Case, str, str]


@dataclass(frozen=True)
class Becomes:
    """What a lowering becomes in an ONNX file, in 16 phases where it has any.

    Args:
        case: with widths that are multiples of 16, so that nothing is computed in excess and cut off.
        operators: how many of each, but for those that only give a tensor another shape.
        stored: how many numbers.
    """

    case: Case
    operators: dict[str, int]
    stored: int


@dataclass(frozen=True)
class Tested:
    """What the laws need to know of a lowering: the contents of its file in this folder.

    Args:
        examples: three or more, on which it is proposed; the first is the one that models are made of.
        refusals: a case, the code and the words for each refusal.
        steer: what is drawn for it, so that it is proposed often; a new one may do without.
        factored: it computes with factors of the kernel, and is exact where the factors are.
        open_size: code and words of its refusal where the batch is open; None: it is proposed all the same.
        beyond: an example of which only outputs of padding are kept; None: it has none.
        onnx: what it becomes; None only of several lowerings at once.
    """

    examples: list[Case]
    refusals: list[Refused]
    steer: dict[str, list[Any]] = field(default_factory=dict)
    factored: bool = False
    open_size: tuple[str, str] | None = None
    beyond: Case | None = None
    onnx: Becomes | None = None

    def __post_init__(self) -> None:
        if self.factored:
            ranked = [case if case.rank else replace(case, rank=1) for case in self.examples]
            object.__setattr__(self, "examples", ranked)


# Drawn for lowerings of a kernel that is one product of a column and a row.
RANK_ONE: dict[str, list[Any]] = {"dim": [2], "block": [(1, 1)], "rank": [1], "taps": [2, 3, 5]}
