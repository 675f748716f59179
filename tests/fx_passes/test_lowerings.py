"""The laws that every lowering keeps; a new file in ``lowerings/`` is tested by being there."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import GraphModule

from fx_passes import share_kernels
from fx_passes.capture.routes import capture
from fx_passes.errors import UsageError
from fx_passes.kernels.expand import expand_block_diagonal
from fx_passes.kernels.factor import factorise
from fx_passes.lower import Site, lower, lowerable_sites
from fx_passes.lowerings import MODULES, build, propose, propose_one
from fx_passes.lowerings.forms.base import Lowered
from fx_passes.plan import Choice, Plan
from fx_passes.records import ConvGeometry, Proposal
from fx_passes.resample.axes import Moved, Resample, absorb_after, absorb_before, resample_of

FEW = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))

# These compute with factors of the kernel: exact where the factors are.
FACTORED = (
    "banded",
    "separable",
    "separable_polyphase",
    "column_polyphase",
    "transposed_separable",
    "low_rank",
)


# All lowerings, each for siblings at once: a way to compute sites, over which the laws run as well.
SIBLINGS = "sibling_merge"
WAYS = (*MODULES, SIBLINGS)


@dataclass(frozen=True)
class Case:
    """A convolution of one kernel with what is around it, as torch computes it and as a ``Resample``.

    Args:
        stuff: zeros stuffed into the input, front: how much of ``front_mode`` is then padded, keep: which of
            the outputs are kept (first, step, dropped at the end), each by axis; then the output is scaled.
        bias: ``"shared"`` by the groups, one for each ``"channel"``, or None.
        rank: of the kernel, 0 for any.
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

        if self.rank and self.dim == 2:
            lines = [(numbers(*shape[:3], 1), numbers(*shape[:2], 1, shape[3])) for _ in range(self.rank)]
            return torch.stack([column * row for column, row in lines]).sum(0).to(dtype)
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
            y = y[(..., *(slice(first, size - drop, step) for (first, step, drop), size in ends))]
        return y if self.scale == 1.0 else y * self.scale

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        g, groups = self.geometry, 1 if self.block_diagonal else self.geometry.groups
        if g.transposed:
            conv: Any = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[self.dim - 1]
            return conv(x, weight, bias, g.stride, g.padding, g.output_padding, groups, g.dilation)
        conv, padding = (F.conv1d, F.conv2d, F.conv3d)[self.dim - 1], g.padding
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


RANK_ONE: dict[str, list[Any]] = {"dim": [2], "block": [(1, 1)], "rank": [1], "taps": [2, 3, 5]}

# What is drawn for a lowering, that it is proposed often; a new one may do without.
STEER: dict[str, dict[str, list[Any]]] = {
    "lift": {"dim": [1], "blocked": [False]},
    "grouped": {"dim": [1, 2], "blocked": [True], "stuffed": [False]},
    "fold_batch": {"dim": [1, 2], "batch": [2, 3], "stuffed": [False]},
    "fold_channels": {"dim": [1, 2], "block": [(2, 1), (1, 2), (2, 3)], "stuffed": [False]},
    "polyphase": {"dim": [1, 2], "block": [(1, 1)], "transposed": [False], "stuffed": [False]},
    "transposed_polyphase": {
        "dim": [1, 2],
        "block": [(1, 1)],
        "transposed": [True],
        "stride": [1, 2, 2, 4],
        "step": [1],
    },
    "separable": {**RANK_ONE, "transposed": [False], "stuffed": [False]},
    "separable_polyphase": {**RANK_ONE, "transposed": [False], "stuff": [1, 1, 2]},
    "banded": {**RANK_ONE, "dim": [1, 2, 2]},
    "column_polyphase": {**RANK_ONE, "transposed": [False], "stuffed": [False]},
    "transposed_separable": {**RANK_ONE, "transposed": [True], "stride": [2, 4], "step": [1]},
    SIBLINGS: {"siblings": [2, 3], "dim": [1, 2], "block": [(1, 1), (1, 1), (1, 2)]},
    "low_rank": {
        "dim": [2],
        "block": [(1, 1)],
        "rank": [2, 3],
        "transposed": [False],
        "stuffed": [False],
        "taps": [10, 11, 12],
        "size": [12, 20, 25],
        "dilation": [1],
    },
}


@st.composite
def cases(draw: st.DrawFn, name: str = "") -> Case:
    """Any convolution of one kernel that torch accepts, with sizes that keep it quick."""
    steer = STEER.get(name, {})

    def choose(what: str, options: list[Any]) -> Any:
        return draw(st.sampled_from(steer.get(what, options)))

    dim, transposed = choose("dim", [1, 2, 2, 2, 3]), choose("transposed", [False, True])
    axes, small = range(dim), dim == 3
    kernel = tuple(choose("taps", [1, 2, 3] if small else [1, 2, 3, 4, 5, 6]) for _ in axes)
    stride, dilation = (tuple(choose(what, [1, 1, 2, 3]) for _ in axes) for what in ("stride", "dilation"))
    padding: Any = tuple(draw(st.integers(0, 2)) for _ in axes)
    extra = tuple(draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True))
    sizes = tuple(choose("size", list(range(3, 6 if small else 21))) for _ in axes)
    modes = ["zeros", "reflect", "replicate", "circular"]
    mode = "zeros" if transposed or small else draw(st.sampled_from(modes))
    if mode == "zeros" and not transposed and draw(st.integers(0, 5)) == 0:
        padding, stride = "same", (1,) * dim
    groups, (rows, columns) = (
        draw(st.integers(1, 4)),
        choose("block", [(1, 1), (1, 1), (2, 1), (1, 2), (2, 3)]),
    )
    blocked = choose("blocked", [False, False, True])
    op = f"conv{'_transpose' if transposed else ''}{dim}d"
    groups = max(groups, 2) if blocked else groups
    geometry = ConvGeometry(
        op,
        groups * columns,
        groups * rows,
        groups,
        kernel,
        stride,
        padding,
        dilation,
        extra if transposed else (0,) * dim,
        mode,
    )
    case = Case(
        geometry,
        choose("batch", [1, 2, 3]),
        rows,
        columns,
        sizes,
        blocked,
        draw(st.sampled_from([None, "shared", "channel"])),
        choose("rank", [0, 1, 2]),
        draw(st.integers(0, 99)),
        siblings=choose("siblings", [1]),
    )
    if mode == "zeros" and draw(st.booleans()):
        front_mode = "zeros" if small else draw(st.sampled_from(["zeros", "reflect", "replicate"]))
        front = tuple((draw(st.integers(0, 2)), draw(st.integers(0, 2))) for _ in axes)
        stuff = tuple(choose("stuff", [1, 1, 2, 3]) for _ in axes)
        stuffed = front_mode == "zeros" and choose("stuffed", [False, True])
        case = replace(case, front=front, front_mode=front_mode, stuff=stuff if stuffed else ())
    if draw(st.booleans()):
        ends = tuple(
            (draw(st.integers(0, 2)), choose("step", [1, 1, 2]), draw(st.integers(0, 2))) for _ in axes
        )
        case = replace(case, keep=ends, scale=choose("scale", [1.0, 0.5, -2.0]))
    assume(_reaches_the_input(case))
    return case


def _reaches_the_input(case: Case) -> bool:
    """Whether there is an output, and one along each axis that is not of padding alone."""
    resample = case.resample()
    sizes = zip(resample.axes, case.sizes, resample.out_shape[2:], strict=True)
    for axis, size, out in sizes:
        if out is None or out < 1:
            return False
        last = (out - 1) * axis.down + axis.span - axis.shift
        if -axis.shift >= size * axis.up or last < 0:
            return False
    return min(_conv_sizes(case)) > 0


def _conv_sizes(case: Case) -> list[int]:
    """Sizes of the output of the convolution itself, which torch wants to be above 0."""
    whole = replace(case, keep=()).resample()
    return [size for size in whole.out_shape[2:] if size is not None]


# At least three for each lowering, on which it has to be proposed; the first is the one that models are made
# of.
EXAMPLES: dict[str, list[Case]] = {
    "banded": [
        make((5,), (20,), stride=2, padding=2, padding_mode="reflect", bias="shared"),
        make(
            (12,),
            (40,),
            transposed=True,
            stride=2,
            front=((5, 5),),
            front_mode="replicate",
            keep=((9, 1, 9),),
        ),
        make(
            (5, 3),
            (12, 9),
            stride=(2, 1),
            dilation=(1, 2),
            padding=2,
            padding_mode="circular",
            rank=1,
            bias="channel",
        ),
        make((4, 4), (6, 9), stuff=(2, 3), stride=(1, 2), front=((2, 1), (2, 1)), scale=0.5, rank=1),
    ],
    "lift": [
        make((5,), (20,), stride=2, padding=2),
        make((4,), (9,), transposed=True, stride=2, padding=1, output_padding=1, bias="channel"),
        make((3,), (12,), rows=2, columns=3, dilation=2, padding=2, padding_mode="replicate", bias="shared"),
        make((3,), (5,), stride=2, padding=2, padding_mode="circular"),
    ],
    "grouped": [
        make((3, 3), (9, 8), block_diagonal=True, padding=1),
        make((4, 4), (5, 6), block_diagonal=True, transposed=True, stride=2, padding=1, bias="channel"),
        make((5,), (20,), block_diagonal=True, rows=2, columns=2, stride=2, bias="shared"),
    ],
    "fold_batch": [
        make((3, 3), (9, 8), padding=1, bias="shared"),
        make((4, 4), (5, 6), transposed=True, stride=2, padding=1, output_padding=1),
        make((5,), (20,), rows=2, columns=2, padding=2, padding_mode="reflect", bias="channel"),
        make((3, 2), (5, 4), stride=2, padding=(2, 1), padding_mode="circular"),
    ],
    "fold_channels": [
        make((3, 3), (9, 8), rows=2, columns=2, padding=1, bias="shared"),
        make((3, 3), (9, 8), rows=1, columns=3, stride=2, padding_mode="replicate", padding=2),
        make((4, 4), (5, 6), rows=2, columns=1, transposed=True, stride=2, bias="channel"),
    ],
    "separable": [
        make((3, 5), (9, 12), padding=(1, 2), bias="shared"),
        make((4, 4), (9, 8), front=((1, 2), (3, 0)), keep=((0, 2, 1), (1, 1, 1)), scale=0.5),
        make(
            (5, 3), (12, 9), stride=(2, 1), dilation=(1, 2), padding=2, padding_mode="reflect", bias="channel"
        ),
    ],
    "polyphase": [
        make((3, 3), (9, 40), padding=1, bias="shared"),
        make((5,), (50,), stride=2, front=((3, 1),), front_mode="reflect", keep=((1, 2, 1),), scale=0.5),
        make((3, 4), (9, 20), dilation=2, padding=(0, 2), stride=(2, 3), bias="channel"),
        make((3, 3), (9, 7), padding=1, padding_mode="replicate", block_diagonal=True),
    ],
    "separable_polyphase": [
        make((5, 5), (12, 40), padding=2, bias="shared"),
        make((3, 5), (9, 20), stride=(2, 3), front=((1, 2), (3, 0)), front_mode="replicate", bias="channel"),
        make((4, 4), (9, 20), transposed=True, stride=(1, 2), padding=1),
    ],
    "column_polyphase": [
        make((5, 5), (40, 12), padding=2, bias="shared"),
        make((3, 5), (20, 9), stride=(2, 3), front=((1, 2), (3, 0)), front_mode="replicate", bias="channel"),
        make(
            (4, 3),
            (33, 20),
            dilation=(2, 1),
            padding=(3, 1),
            padding_mode="reflect",
            keep=((3, 2, 1), (1, 1, 0)),
        ),
    ],
    "transposed_polyphase": [
        make((4, 4), (5, 20), transposed=True, stride=2, padding=1, bias="shared"),
        make(
            (12,),
            (30,),
            transposed=True,
            stride=4,
            front=((5, 5),),
            front_mode="replicate",
            keep=((9, 1, 9),),
        ),
        make((4, 4), (6, 9), stuff=(2, 2), front=((2, 1), (2, 1)), bias="channel"),
        make((3, 5), (6, 9), stuff=(1, 4), stride=(1, 3), padding=2),
        make((3, 3), (4, 6), transposed=True, stride=(3, 2), dilation=(2, 3), output_padding=2),
    ],
    "transposed_separable": [
        make((8, 8), (5, 20), transposed=True, stride=4, padding=2, bias="shared"),
        make((3, 4), (6, 9), stuff=(2, 1), front=((2, 1), (2, 1)), bias="channel"),
        make(
            (5, 3), (4, 6), transposed=True, stride=(3, 2), dilation=(2, 3), output_padding=(2, 1), scale=0.5
        ),
    ],
    SIBLINGS: [
        make((3, 3), (9, 8), padding=1, bias="shared", siblings=2),
        make((4,), (9,), transposed=True, stride=2, padding=1, bias="channel", siblings=3),
        make(
            (5, 5), (9, 20), stride=(1, 2), front=((2, 1), (2, 2)), front_mode="reflect", siblings=2, rank=1
        ),
    ],
    "low_rank": [
        make((11, 11), (20, 40), padding=5, rank=2, bias="shared"),
        make((12, 12), (14, 20), padding=3, rank=2, stride=2, padding_mode="reflect", bias="channel"),
        make((13, 13), (20, 20), rank=3, front=((2, 1), (3, 4)), keep=((1, 2, 0), (0, 1, 2)), scale=-2.0),
    ],
}
EXAMPLES = {
    name: [replace(case, rank=1) if name in FACTORED and not case.rank else case for case in listed]
    for name, listed in EXAMPLES.items()
}


@dataclass(frozen=True)
class Checked:
    """What a proposal gives for the numbers of a case, and what it should give."""

    case: Case
    proposal: Proposal
    found: Tensor
    expected: Tensor
    allowed: Tensor
    original: Tensor

    @property
    def agrees(self) -> bool:
        """To the rounding that the arithmetic may cost; to the last bit of the model where it says so."""
        if self.found.shape != self.expected.shape:
            return False
        if self.proposal.exactness == "bitwise" and not torch.equal(self.found, self.original):
            return False
        return bool(((self.found.double() - self.expected).abs() <= self.allowed).all())

    @property
    def exact(self) -> bool:
        """To the last bit."""
        return torch.equal(self.found.double(), self.expected)


def check(name: str, case: Case, dtype: torch.dtype, integers: bool, perturb: float = 0.0) -> list[Checked]:
    """Every proposal of a lowering on a case; with ``perturb``, against a kernel of which one tap is off."""
    x, kernel, bias = case.input(dtype, integers), case.kernel(dtype, integers), case.bias_of(dtype)
    resample = case.resample()
    other = kernel.double().clone()
    middle = tuple(size // 2 for size in kernel.shape)
    other[middle] += perturb
    wide = None if bias is None else bias.double()
    expected = case.reference(x.double(), other, wide)
    assert expected.shape[1:] == resample.out_shape[1:]
    original = case.reference(x, kernel, bias)
    checked = []
    for proposal in of(name, resample, kernel, case.siblings):
        allowed = _allowed(factored(proposal), case, x, kernel, wide)
        found = build(proposal, resample, kernel, bias, case.siblings)(x)
        checked.append(Checked(case, proposal, found, expected, allowed, original))
    return checked


def of(name: str, resample: Resample, kernel: Tensor, siblings: int = 1) -> list[Proposal]:
    """What the way ``name`` proposes: a lowering, or all of them for siblings at once."""
    found, _ = propose(resample, kernel, siblings=siblings)
    return [p for p in found if (SIBLINGS if p.merged else p.lowering) == name]


def factored(proposal: Proposal) -> bool:
    return proposal.lowering in FACTORED


def gamma(roundings: int, dtype: torch.dtype) -> float:
    """The relative error of a term that goes through so many roundings (Higham 2002, lemma 3.1)."""
    total = roundings * torch.finfo(dtype).eps / 2
    return total / (1 - total)


def _allowed(by_factors: bool, case: Case, x: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
    """gamma_n * (|w| * |x| + |b|), element by element.

    On the longest path are, directly: the rounding of a tap (scaled), its product, a sum for every other tap;
    through factors: two roundings, two products, sums of the row, of the column, of the rank. Then the
    rounding of the bias, and its sum. What is compared with was rounded alike, in float64.
    """
    taps, positive = case.geometry.kernel, replace(case, scale=abs(case.scale))
    bias = None if bias is None else bias.abs()
    weight, apart = kernel.double().abs(), torch.zeros(())
    if by_factors and len(taps) == 2:
        pairs = factorise(kernel[0, 0], 3)
        assert pairs is not None
        weight = torch.stack([torch.outer(c.abs(), r.abs()) for c, r in pairs]).sum(0)[None, None]
        # The factors may be off by 4 units in the last place of the largest tap.
        largest = 4 * torch.finfo(kernel.dtype).eps * float(kernel.abs().max())
        apart = positive.reference(x.double().abs(), torch.full_like(weight, largest), None)
    roundings = max(case.columns * weight[0, 0].numel(), sum(taps) + 3) + 4
    size = positive.reference(x.double().abs(), weight, bias)
    return (gamma(roundings, x.dtype) + gamma(roundings, torch.float64)) * size + apart


def each(name: str, dtype: torch.dtype, integers: bool) -> list[Checked]:
    """All proposals on the examples of a lowering."""
    return [checked for case in EXAMPLES[name] for checked in check(name, case, dtype, integers)]


def test_every_lowering_has_examples() -> None:
    """A new lowering needs three cases on which it is proposed, or the laws below would say nothing."""
    assert set(EXAMPLES) == set(WAYS)
    assert all(len(listed) >= 3 for listed in EXAMPLES.values())


@pytest.mark.parametrize("name", WAYS)
def test_examples_are_proposed(name: str) -> None:
    """Each example of a lowering is one: the laws have something to look at."""
    for case in EXAMPLES[name]:
        assert of(name, case.resample(), case.kernel(torch.float32, integers=False), case.siblings)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("name", WAYS)
def test_agrees_to_rounding(name: str, dtype: torch.dtype) -> None:
    """Law 2: the algebra holds, whatever the geometry; what is left is within the bound of rounding."""
    assert all(checked.agrees for checked in each(name, dtype, integers=False))
    proposed = 0

    @FEW
    @given(case=cases(name))
    def law(case: Case) -> None:
        nonlocal proposed
        found = check(name, case, dtype, integers=False)
        proposed += bool(found)
        for checked in found:
            assert checked.agrees, checked.proposal

    law()
    if proposed < 20:  # of 60 draws, 30 to 50 as a rule; once 19
        law()
    assert proposed >= 20, "the lowering was hardly tested"


@pytest.mark.parametrize("name", WAYS)
def test_small_integers_are_exact(name: str) -> None:
    """Law 1: where every product and sum is exact, the bits are the same."""
    seen = 0

    def require(case: Case) -> None:
        nonlocal seen
        found = check(name, case, torch.float32, integers=True)
        # Other factors may not be numbers of few bits.
        found = [checked for checked in found if case.rank == 1 or not factored(checked.proposal)]
        seen += bool(found)
        for checked in found:
            assert checked.exact, checked.proposal

    for case in EXAMPLES[name]:
        require(case)
    if name != "low_rank":  # rank 1 is not proposed; test_low_rank_of_exact_factors
        law = FEW(given(case=cases(name))(require))
        law()
        if seen < 15:  # as above
            law()
        assert seen >= 15, "the lowering was hardly tested"


def test_low_rank_of_exact_factors() -> None:
    """Law 1 for two products whose factors are powers of two, each in rows and columns of its own."""
    case = make((11, 11), (20, 40), padding=5, rank=2)
    kernel = torch.zeros(1, 1, 11, 11)
    kernel[0, 0, 5, 5], kernel[0, 0, 2, 8] = 4, 1
    x = case.input(torch.float32, integers=True)
    (proposal,) = (p for p in propose(case.resample(), kernel)[0] if p.lowering == "low_rank")
    found = build(proposal, case.resample(), kernel, None)(x)
    assert torch.equal(found, case.reference(x, kernel, None))


@pytest.mark.parametrize("name", WAYS)
def test_a_perturbed_tap_is_found(name: str) -> None:
    """Law 3, the negative control of both laws above: one tap off by 2 percent, and no check agrees."""
    for case in EXAMPLES[name]:
        for dtype in (torch.float64, torch.float32):
            off = 0.02 * float(case.kernel(dtype, integers=False).abs().max())
            found = check(name, case, dtype, integers=False, perturb=off)
            assert found
            assert not any(checked.agrees for checked in found)
        assert not any(c.exact for c in check(name, case, torch.float32, integers=True, perturb=1.0))


@pytest.mark.parametrize("name", WAYS)
def test_agrees_when_exported(name: str) -> None:
    """Law 2 for what an exporter sees, which may be written in other operators than what eager torch runs."""
    for case in EXAMPLES[name]:
        for checked in check(name, case, torch.float32, integers=False)[:2]:
            kernel, bias = case.kernel(torch.float32, False), case.bias_of(torch.float32)
            module, x = (
                build(checked.proposal, case.resample(), kernel, bias, case.siblings),
                case.input(torch.float32, False),
            )
            found = torch.export.export(module, (x,)).module()(x)
            assert replace(checked, found=found).agrees, checked.proposal


@pytest.mark.parametrize("number", [torch.inf, -torch.inf, torch.nan])
@pytest.mark.parametrize("name", WAYS)
def test_what_is_reordered_spreads_no_infinity(name: str, number: float) -> None:
    """Unless it says ``finite``, a lowering gives the outputs an Inf or NaN that had one, and no other."""

    @settings(FEW, max_examples=20)
    @given(case=cases(name))
    def law(case: Case) -> None:
        for proposal, found, expected in spread(name, case, number):
            if proposal.exactness != "finite":
                assert torch.equal(found, expected), proposal

    law()


@pytest.mark.parametrize("name", WAYS)
def test_what_is_finite_spreads_infinities_otherwise(name: str) -> None:
    """A lowering that says ``finite`` has an example on which it could say nothing better."""
    results = [result for case in EXAMPLES[name] for result in spread(name, case, torch.inf)]
    finite = [result for result in results if result[0].exactness == "finite"]
    for _, found, expected in results:
        assert found.shape == expected.shape
    if finite:
        assert any(not torch.equal(found, expected) for _, found, expected in finite)


def spread(name: str, case: Case, number: float) -> list[tuple[Proposal, Tensor, Tensor]]:
    """Where the outputs are finite, found and expected, with one element of the input that is not."""
    x, kernel, bias = (
        case.input(torch.float32, False),
        case.kernel(torch.float32, False),
        case.bias_of(torch.float32),
    )
    x.view(-1)[x.numel() // 2] = number
    if case.rank == 0:
        kernel.view(-1)[::2] = 0  # 0 * Inf is NaN, wherever the model multiplies with it
    expected = case.reference(x, kernel, bias).isfinite()
    resample = case.resample()
    proposals = of(name, resample, kernel, case.siblings)
    return [(p, build(p, resample, kernel, bias, case.siblings)(x).isfinite(), expected) for p in proposals]


class Net(nn.Module):
    """A case as a model: the weight is a parameter that repeats its kernel."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.case = case
        weight, bias = case.full(case.kernel(torch.float32, False), case.bias_of(torch.float32))
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.case.siblings == 1:
            return self.case.run(x, self.weight, self.bias)
        parts = x.chunk(self.case.siblings)
        return torch.cat([self.case.run(part, self.weight, self.bias) for part in parts])


def plan_for(model: nn.Module | ExportedProgram, inputs: Any, name: str, most: int = 9) -> Plan:
    """The first proposal of a lowering at the first ``most`` sites of a model, none at the others."""
    sites, _ = lowerable_sites(capture(model, inputs).graph_module)
    assert sites
    return Plan(
        {site.id: Choice(site.key, _first(site, name) if i < most else None) for i, site in enumerate(sites)}
    )


def _first(site: Site, name: str) -> Proposal:
    return of(name, site.resample, site.kernel, site.siblings)[0]


def calls(plan: Plan) -> list[str]:
    """The lowerings that a graph calls which was lowered by a plan: one call for all siblings."""
    chosen = [(choice.key, choice.proposal) for choice in plan.choices.values() if choice.proposal]
    once = {key: p.lowering for key, p in chosen if p.merged}
    return [p.lowering for _, p in chosen if not p.merged] + list(once.values())


def close(case: Case, found: Tensor, x: Tensor) -> bool:
    """Whether ``found`` is what a case computes from ``x``, up to rounding."""
    kernel, bias = case.kernel(torch.float32, False), case.bias_of(torch.float32)
    wide = None if bias is None else bias.double()
    allowed = _allowed(bool(case.rank), case, x, kernel, wide)
    return bool(((found - case.reference(x.double(), kernel.double(), wide)).abs() <= allowed).all())


ROUTES: dict[str, Any] = {
    "nn.Module": lambda model, x: model,
    "exported program": lambda model, x: torch.export.export(model, (x,)),
    "graph module": lambda model, x: torch.export.export(model, (x,)).module(),
}


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("name", WAYS)
def test_the_model_is_left_alone(name: str, route: str) -> None:
    """Law 4: parameters, state_dict and code of what was given are as before, and the lowering was done."""
    case = EXAMPLES[name][0]
    x = case.input(torch.float32, False)
    model = ROUTES[route](Net(case), x)
    plan = plan_for(model, (x,), name)
    before = snapshot(model)
    lowered = lower(model, plan, (x,))
    assert close(case, lowered(x), x)
    assert called_modules(lowered) == calls(plan)
    after = snapshot(model)
    assert after["code"] == before["code"]
    assert after["modules"] == before["modules"]
    for key, (pointer, value) in before["state"].items():
        assert after["state"][key][0] == pointer
        assert torch.equal(after["state"][key][1], value)


def snapshot(model: nn.Module | ExportedProgram) -> dict[str, Any]:
    """Everything that a pass must leave alone."""
    code = model.graph_module.code if isinstance(model, ExportedProgram) else getattr(model, "code", None)
    modules = {} if isinstance(model, ExportedProgram) else {n: id(m) for n, m in model.named_modules()}
    state = model.state_dict if isinstance(model, ExportedProgram) else model.state_dict()
    return {
        "state": {key: (value.data_ptr(), value.clone()) for key, value in state.items()},
        "modules": modules,
        "code": code,
    }


def called_modules(graph_module: GraphModule) -> list[str]:
    """The lowerings that a graph calls, in its order."""
    targets = [str(node.target) for node in graph_module.graph.nodes if node.op == "call_module"]
    modules = [graph_module.get_submodule(target) for target in targets]
    return [type(m).__module__.rpartition(".")[2] for m in modules if isinstance(m, Lowered)]


@pytest.mark.parametrize("name", WAYS)
def test_lowering_again_gives_the_same(name: str) -> None:
    """Law 4: twice from the model, the code is the same; what is lowered has nothing left to lower."""
    case = EXAMPLES[name][0]
    x = case.input(torch.float32, False)
    model = Net(case)
    plan = plan_for(model, (x,), name)
    first, second = lower(model, plan, (x,)), lower(model, plan, (x,))
    assert first.code == second.code
    assert torch.equal(first(x), second(x))
    again = lower(first, "static")
    assert again.code == first.code
    assert torch.equal(again(x), first(x))


@pytest.mark.parametrize("name", WAYS)
def test_a_plan_without_proposals_shares(name: str) -> None:
    """Law 4: what no lowering is chosen for is the plain shared graph, bit for bit."""
    case = EXAMPLES[name][0]
    x, model = case.input(torch.float32, False), Net(case)
    lowered = lower(model, plan_for(model, (x,), name, most=0), (x,))
    assert lowered.code == share_kernels(model, (x,)).code
    assert torch.equal(lowered(x), model(x))
    kernel = EXAMPLES[name][0].kernel(torch.float32, False)
    assert lowered.get_parameter("weight").numel() == kernel.numel()


class Twice(nn.Module):
    """A model called on its input, and on twice its input."""

    def __init__(self, net: Net) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.net(x), self.net(2 * x)


@pytest.mark.parametrize("name", WAYS)
def test_a_weight_of_two_sites(name: str) -> None:
    """Law 5: a module called twice is lowered at both calls, by one module, or at one, and shared at the
    other."""
    case = EXAMPLES[name][0]
    x, model = case.input(torch.float32, False), Twice(Net(case))
    plan = plan_for(model, (x,), name)
    both = lower(model, plan, (x,))
    assert called_modules(both) == calls(plan)
    assert len({node.target for node in both.graph.nodes if node.op == "call_module"}) == 1
    results = [both(x)]
    if case.siblings == 1:  # of siblings, all or none: see test_siblings_of_which_one_is_left
        one = lower(model, plan_for(model, (x,), name, most=1), (x,))
        assert called_modules(one) == [name]
        assert one.get_parameter("net.weight").numel() == case.kernel(torch.float32, False).numel()
        results.append(one(x))
        assert torch.equal(results[1][1], model(x)[1])
    for result in results:
        for found, scale in zip(result, (1, 2), strict=True):
            assert close(case, found, scale * x)


class Regularised(nn.Module):
    """A weight that is an output as well, whole or as the kernel that is repeated to make it."""

    def __init__(self, case: Case, repeats: bool) -> None:
        super().__init__()
        self.case, self.repeats = case, repeats
        self.weight = nn.Parameter(case.full(case.kernel(torch.float32, False), None)[0], requires_grad=False)
        if repeats:
            block = self.weight.shape[0] // case.geometry.groups
            self.weight = nn.Parameter(self.weight[:block].clone(), requires_grad=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        weight, groups = self.weight, self.case.geometry.groups
        if self.repeats:
            weight = weight.repeat(groups, *[1] * (weight.ndim - 1))
        return self.case.run(x, weight, None), self.weight.square().sum()


@pytest.mark.parametrize("name", sorted(set(MODULES) - {"grouped"}))
def test_a_weight_with_another_use(name: str) -> None:
    """Law 5: a weight tied to something that is no convolution stays whole and its site as it is; a kernel
    that is repeated for the site alone does not stop the lowering."""
    case = replace(EXAMPLES[name][0], bias=None)
    x = case.input(torch.float32, False)
    whole = Regularised(case, repeats=False)
    assert lowerable_sites(capture(whole, (x,)).graph_module) == ([], {})
    kept = lower(whole, "static", (x,))
    assert called_modules(kept) == []
    assert all(torch.equal(a, b) for a, b in zip(kept(x), whole(x), strict=True))
    model = Regularised(case, repeats=True)
    lowered = lower(model, plan_for(model, (x,), name), (x,))
    assert called_modules(lowered) == [name]
    found, squares = lowered(x)
    assert close(case, found, x)
    assert torch.equal(squares, model(x)[1])


# Law 6. For each lowering, what makes it refuse, and the words.
GROUPED_REFUSALS = [
    (
        make((3,), (8,), rows=2, transposed=True, stride=2, front=((1, 1),)),
        "its padding is none that a transposed convolution has",
    ),
    (make((3, 3, 3), (4, 4, 4), rows=2), "3-D convolutions are computed as they are"),
    (make((3, 3), (8, 8), stuff=(2, 2), stride=3, rows=2), "it changes the rate by a fraction"),
    (
        make((3, 3), (8, 8), transposed=True, rows=2, stride=2, front=((1, 1), (1, 1)), front_mode="reflect"),
        "its padding is none that a transposed convolution has",
    ),
    (
        make((3, 3), (8, 8), transposed=True, rows=2, stride=2, keep=((0, 1, 3), (0, 1, 3))),
        "its output is cut as a transposed convolution cannot",
    ),
]
LARGE_BLOCK = make((3, 3), (8, 8), rows=2, columns=3), "a group has 3 input and 2 output channels, not one"
VOLUME = make((3, 3, 3), (4, 4, 4)), "3-D convolutions are computed as they are"
HEIGHT = (
    make((3, 3), (8, 8), stuff=(2, 1), stride=(3, 1)),
    "it changes the rate of the height by a fraction",
)
REFUSALS: dict[str, list[tuple[Case, str]]] = {
    "banded": [
        VOLUME,
        LARGE_BLOCK,
        (make((3, 1), (8, 8)), "the kernel is a row or a column already"),
        (make((3, 3), (8, 8), rank=2), "the rank of the kernel is above 1"),
        (make((3, 3), (8, 97), rank=1), "lines of 97 samples, more than 96, are mostly zeros in its matrix"),
        (make((3,), (97,)), "lines of 97 samples, more than 96, are mostly zeros in its matrix"),
    ],
    "fold_batch": [
        (make((3, 3), (8, 8), batch=1), "the batch has one item"),
        *GROUPED_REFUSALS,
    ],
    "fold_channels": [
        (make((3, 3), (8, 8)), "a group has one channel, and so no dense convolution"),
        *GROUPED_REFUSALS,
    ],
    "grouped": [
        (make((3, 3), (8, 8)), "the convolution is not block-diagonal"),
        *((replace(case, block_diagonal=True), reason) for case, reason in GROUPED_REFUSALS),
    ],
    "lift": [
        (make((3, 3), (8, 8)), "the convolution has more than one dimension"),
        (make((3,), (8,), block_diagonal=True), "the convolution is dense; `grouped` lifts it as well"),
        (make((3,), (8,), stuff=(2,), stride=3), "it changes the rate by a fraction"),
        (
            make((3,), (8,), transposed=True, stride=2, front=((1, 1),), front_mode="replicate"),
            "its padding is none that a transposed convolution has",
        ),
        (
            make((3,), (8,), transposed=True, stride=2, keep=((3, 1, 0),)),
            "its output is cut as a transposed convolution cannot",
        ),
    ],
    "separable": [
        VOLUME,
        (make((3, 3), (8, 8), rank=1, stuff=(1, 2)), "it is transposed"),
        (make((3,), (8,)), "a 1-D kernel is not separated"),
        LARGE_BLOCK,
        (make((1, 3), (8, 8)), "the kernel is a row or a column already"),
        (make((3, 3), (8, 8), rank=2), "the rank of the kernel is above 1"),
    ],
    "polyphase": [
        (make((3, 3), (8, 8), transposed=True, stride=2), "it is transposed"),
        VOLUME,
        LARGE_BLOCK,
    ],
    "transposed_polyphase": [
        (make((3, 3), (8, 8)), "it is not transposed"),
        (make((3, 3, 3), (4, 4, 4), transposed=True, stride=2), VOLUME[1]),
        (
            make((3, 3), (8, 8), rows=2, transposed=True, stride=2),
            "a group has 1 input and 2 output channels, not one",
        ),
        HEIGHT,
        (
            make((3, 3), (8, 8), transposed=True, stride=(1, 5)),
            "no block of 8, 16 or 32 outputs begins on an input sample at stride 5",
        ),
    ],
    "separable_polyphase": [
        VOLUME,
        LARGE_BLOCK,
        HEIGHT,
        (
            make((3, 3), (8, 8), transposed=True, stride=(1, 3), rank=1),
            "no block of 8, 16 or 32 outputs begins on an input sample at stride 3",
        ),
        (make((3,), (8,)), "a 1-D kernel is not separated"),
        (make((3, 1), (8, 8)), "the kernel is a row or a column already"),
        (make((3, 3), (8, 8), rank=2), "the rank of the kernel is above 1"),
        (
            make((3, 3), (8, 8), transposed=True, stride=2, rank=1),
            "it is transposed along the height, where `transposed_polyphase` has few taps left",
        ),
    ],
    "column_polyphase": [
        VOLUME,
        LARGE_BLOCK,
        HEIGHT,
        (make((3,), (8,)), "a 1-D kernel is not separated"),
        (make((3, 1), (8, 8)), "the kernel is a row or a column already"),
        (make((3, 3), (8, 8), rank=2), "the rank of the kernel is above 1"),
        (make((3, 3), (8, 8), transposed=True, stride=(2, 1), rank=1), "it is transposed"),
    ],
    "transposed_separable": [
        VOLUME,
        LARGE_BLOCK,
        HEIGHT,
        (make((3,), (8,), transposed=True, stride=2), "a 1-D kernel is not separated"),
        (make((3, 1), (8, 8)), "the kernel is a row or a column already"),
        (make((3, 3), (8, 8), transposed=True, stride=2, rank=2), "the rank of the kernel is above 1"),
        (make((3, 3), (8, 8), rank=1), "it is not transposed along the height"),
        (
            make((3, 3), (8, 8), transposed=True, stride=(2, 3), rank=1),
            "no block of 16 outputs begins on an input sample at stride 3",
        ),
    ],
    "low_rank": [
        VOLUME,
        LARGE_BLOCK,
        HEIGHT,
        (make((3,), (8,)), "a 1-D kernel is not separated"),
        (make((1, 3), (8, 8)), "the kernel is a row or a column already"),
        (make((11, 11), (20, 20)), "the rank of the kernel is above 3"),
        (make((11, 11), (20, 20), rank=2, transposed=True, stride=(1, 2)), "it is transposed"),
        (make((11, 11), (20, 20), rank=1), "the kernel has rank 1"),
        (
            make((6, 5), (8, 8), rank=2),
            "a sum of 2 products takes no fewer multiplications than 6 x 5 taps",
        ),
    ],
}
OPEN = {
    "banded": "a size is open",
    "fold_batch": "the batch size is open, and the number of groups may not be",
}


@pytest.mark.parametrize(
    ("name", "case", "reason"),
    [(name, case, reason) for name, listed in REFUSALS.items() for case, reason in listed],
)
def test_refusals(name: str, case: Case, reason: str) -> None:
    """Law 6: each reason, in its words."""
    kernel = case.kernel(torch.float64, integers=False)
    assert MODULES[name].propose(case.resample(), kernel) == reason
    assert propose(case.resample(), kernel)[1][name] == reason


@pytest.mark.parametrize("name", OPEN)
def test_refusals_of_open_sizes(name: str) -> None:
    """Law 6, where the sizes are open."""
    case = EXAMPLES[name][0]
    shape = (None, *case.resample().in_shape[1:])
    resample = replace(case.resample(), in_shape=shape, out_shape=shape)
    assert MODULES[name].propose(resample, case.kernel(torch.float32, False)) == OPEN[name]


@pytest.mark.parametrize("name", [name for name in MODULES if name not in OPEN])
def test_open_batches(name: str) -> None:
    """Law 2 for any number of items, none as well; those not listed above are proposed whatever it is."""
    for case in EXAMPLES[name]:
        shapes = [(None, *shape[1:]) for shape in (case.resample().in_shape, case.resample().out_shape)]
        resample = replace(case.resample(), in_shape=shapes[0], out_shape=shapes[1])
        kernel, bias = case.kernel(torch.float64, False), case.bias_of(torch.float64)
        proposals = of(name, resample, kernel)
        assert proposals
        for proposal, batch in itertools.product(proposals, (0, 1, 3)):
            sized = replace(case, batch=batch)
            x = sized.input(torch.float64, False)
            expected = sized.reference(x, kernel, bias)
            allowed = _allowed(factored(proposal), sized, x, kernel, bias)
            found = build(proposal, resample, kernel, bias)(x)
            assert Checked(sized, proposal, found, expected, allowed, expected).agrees, (proposal, batch)


@pytest.mark.parametrize("steered", ["", *WAYS])
def test_there_are_no_other_refusals(steered: str) -> None:
    """Law 6: a reason that no test knows does not come up, numbers aside; and something always does."""

    @FEW
    @given(case=cases(steered))
    def law(case: Case) -> None:
        proposals, refusals = propose(case.resample(), case.kernel(torch.float64, integers=False))
        for name, reason in refusals.items():
            assert any(_pattern(known).fullmatch(reason) for _, known in REFUSALS[name]), (name, reason)
        assert set(MODULES) == set(refusals) | {proposal.lowering for proposal in proposals}

    law()


@pytest.mark.parametrize("case", EXAMPLES[SIBLINGS], ids=str)
def test_merged_siblings_are_as_exact_as_what_computes_them(case: Case) -> None:
    """Law 6: of each way to compute siblings together, its own exactness."""
    kernel, together = case.kernel(torch.float32, False), case.resample().times(case.siblings)
    proposals = of(SIBLINGS, case.resample(), kernel, case.siblings)
    assert proposals
    for proposal in proposals:
        assert replace(proposal, merged=False) in of(proposal.lowering, together, kernel)


def test_a_site_alone_has_no_siblings() -> None:
    """Law 6: nothing is merged with itself."""
    case = make((3, 3), (8, 8))
    reason = "no other site has its kernel, geometry and shapes, and is independent of it"
    for name in MODULES:
        assert propose_one(name, case.resample(), case.kernel(torch.float32, False), siblings=1) == reason


def _pattern(reason: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"(?<!`)\\?\d+", r"\\d+", re.escape(reason)))


def test_refusal_by_exactness() -> None:
    """Law 6: what is less exact than allowed is refused with both words; the exact enough is proposed."""
    case = make((5, 5), (12, 40), rank=1)
    kernel = case.kernel(torch.float32, False)
    proposals, refusals = propose(case.resample(), kernel, "reordered")
    assert {p.lowering for p in proposals} == {"fold_batch", "separable"}
    assert refusals["polyphase"] == "it is finite, and only reordered is allowed"
    proposals, refusals = propose(case.resample(), kernel, "bitwise")
    assert proposals == []
    assert refusals["separable"] == "it is reordered, and only bitwise is allowed"


def test_a_kernel_that_underflowed_is_exact_for_finite_numbers_alone() -> None:
    """0 * Inf is NaN; with factors that are not 0 it is Inf."""
    taps = torch.exp(-((torch.arange(31) - 15) ** 2) / (2 * 1.2**2)).double()
    kernel = torch.outer(taps, taps).float()
    assert bool((kernel == 0).any())
    for name, values in (("finite", kernel), ("reordered", kernel[8:23, 8:23])):
        case = make(tuple(values.shape), (12, 40), rank=1)
        proposals, _ = propose(case.resample(), values[None, None])
        assert {p.exactness for p in proposals if p.lowering == "separable"} == {name}


# What did not hold once.


@pytest.mark.parametrize(
    ("name", "rank"), [("polyphase", 0), ("separable_polyphase", 1), ("column_polyphase", 1), ("low_rank", 2)]
)
def test_circular_padding_of_a_narrow_input(name: str, rank: int) -> None:
    """Blocks of outputs reach further than once around."""
    size = 11 if name == "low_rank" else 5
    case = make((size, size), (8, 8), padding=size // 2, padding_mode="circular", rank=rank)
    found = check(name, case, torch.float64, integers=False)
    assert found
    assert all(checked.agrees for checked in found)


BEYOND = {
    "low_rank": make((11, 11), (12, 12), padding=15, keep=((0, 1, 0), (28, 1, 0)), rank=2),
    "transposed_separable": make(
        (4, 4),
        (4, 4),
        transposed=True,
        stride=4,
        front=((0, 0), (0, 3)),
        keep=((0, 1, 0), (17, 1, 0)),
        rank=1,
    ),
    "banded": make((3, 3), (4, 4), padding=7, keep=((0, 1, 0), (12, 1, 0)), rank=1),
    "lift": make((3,), (4,), padding=7, keep=((12, 1, 0),)),
    "grouped": make((3, 3), (4, 4), padding=7, keep=((12, 1, 0), (12, 1, 0)), block_diagonal=True),
    "fold_batch": make((3, 3), (4, 4), padding=7, keep=((0, 1, 0), (12, 1, 0))),
    "fold_channels": make((3, 3), (4, 4), padding=7, keep=((0, 1, 0), (12, 1, 0)), columns=2),
    "separable": make((3, 3), (4, 4), padding=7, keep=((0, 1, 0), (12, 1, 0)), rank=1),
    "polyphase": make((3,), (4,), padding=7, keep=((12, 1, 0),)),
    "separable_polyphase": make((3, 3), (4, 4), padding=7, keep=((0, 1, 0), (12, 1, 0)), rank=1),
    "column_polyphase": make((3, 3), (4, 4), padding=7, keep=((12, 1, 0), (0, 1, 0)), rank=1),
    "transposed_polyphase": make((3,), (4,), transposed=True, stride=2, front=((0, 9),), keep=((16, 1, 0),)),
}


@pytest.mark.parametrize("name", BEYOND)
def test_outputs_of_padding_alone(name: str) -> None:
    """A Slice behind may keep only what lies beyond the input: zeros, and the bias."""
    case = BEYOND[name]
    x, model = case.input(torch.float32, False), Net(case)
    lowered = lower(model, plan_for(model, (x,), name), (x,))
    assert called_modules(lowered) == [name]
    assert close(case, lowered(x), x)


@pytest.mark.parametrize("name", ["separable", "separable_polyphase", "column_polyphase"])
def test_a_scale_that_rounds_the_kernel(name: str) -> None:
    """A kernel that is rank 1 within the tolerance stays what was proposed when a factor rounds its taps."""
    case = make((5, 5), (8, 8), scale=0.1)
    generator = torch.Generator().manual_seed(1)
    for _ in range(500):
        kernel = torch.outer(*torch.rand(2, 5, generator=generator) + 0.1)
        place = int(torch.randint(25, (), generator=generator))
        ulps = 3 + 6 * float(torch.rand((), generator=generator))
        kernel.view(-1)[place] += ulps * torch.finfo(torch.float32).eps * kernel.max()
        build_all(name, case, kernel[None, None])


def test_a_scale_keeps_the_rank() -> None:
    """A float64 kernel of rank 3, whose SVD rounds about as much as is tolerated, and a power of two."""
    for seed in range(50):
        case = make((11, 11), (12, 12), rank=3, seed=seed, scale=0.5)
        build_all("low_rank", case, case.kernel(torch.float64, False))


def build_all(name: str, case: Case, kernel: Tensor) -> list[Lowered]:
    """The modules that a lowering proposes for a case."""
    resample = case.resample()
    proposals = [p for p in propose(resample, kernel)[0] if p.lowering == name]
    return [build(proposal, resample, kernel, None) for proposal in proposals]


class Crossed(nn.Module):
    """Two filters in one order, and in the other."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Buffer(torch.tensor([1.0, 2, 3]).repeat(4, 1, 1))
        self.second = nn.Buffer(torch.tensor([3.0, -1, 1]).repeat(4, 1, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        def one(y: Tensor) -> Tensor:
            return F.conv1d(y, self.first, padding=1, groups=4)

        def two(y: Tensor) -> Tensor:
            return F.conv1d(y, self.second, padding=1, groups=4)

        return one(two(x).relu()), two(one(x + 1).relu())


def merging(model: nn.Module, inputs: tuple[Tensor, ...]) -> Plan:
    """Siblings are put together wherever it is proposed."""
    sites, _ = lowerable_sites(capture(model, inputs).graph_module)
    choices = {}
    for site in sites:
        ways = of(SIBLINGS, site.resample, site.kernel, site.siblings)
        choices[site.id] = Choice(site.key, ways[0] if ways else None)
    return Plan(choices)


def test_siblings_that_need_other_siblings() -> None:
    """Each pair is independent; together they are not: one pair is put together, whichever."""
    model, x = Crossed(), torch.randn(2, 4, 30)
    plan = merging(model, (x,))
    assert [choice.proposal is None for choice in plan.choices.values()].count(True) == 2
    torch.testing.assert_close(lower(model, plan, (x,))(x), model(x), rtol=1e-5, atol=1e-5)


def test_siblings_of_which_one_is_left() -> None:
    """All siblings are put together, or none; a plan that says otherwise is refused."""
    case = EXAMPLES[SIBLINGS][0]
    x, model = case.input(torch.float32, False), Net(case)
    with pytest.raises(UsageError, match="the plan merges siblings of `conv2d_1`, but not `conv2d_1` itself"):
        lower(model, plan_for(model, (x,), SIBLINGS, most=1), (x,))


def test_siblings_without_a_batch() -> None:
    """Planes whose height is in the place of a batch, and as large before as after."""

    class Planes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Buffer(torch.arange(9.0).reshape(1, 1, 3, 3))

        def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
            return tuple(F.conv2d(z[None, None], self.weight, padding=1)[0, 0] for z in (x, y))

    model, inputs = Planes(), (torch.ones(8, 9), torch.ones(8, 9))
    plan = merging(model, inputs)
    assert [choice.proposal for choice in plan.choices.values()] == [None, None]
    torch.testing.assert_close(lower(model, plan, inputs)(*inputs), model(*inputs))
