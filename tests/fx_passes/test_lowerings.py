"""The laws that every lowering keeps; a new file in ``lowerings/`` is tested by being there."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from fx_passes.lowerings import MODULES, build, propose
from fx_passes.records import ConvGeometry, Proposal
from fx_passes.resample import Resample, resample_of

FEW = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


@dataclass(frozen=True)
class Case:
    """A convolution with one kernel, its input shape, and the torch function that it is."""

    geometry: ConvGeometry
    batch: int
    rows: int
    columns: int
    sizes: tuple[int, ...]
    block_diagonal: bool
    bias: str | None
    seed: int
    rank: int

    def kernel(self, dtype: torch.dtype, integers: bool) -> Tensor:
        """(rows, columns, *taps), in the order of a correlation."""
        generator = torch.Generator().manual_seed(self.seed)
        shape = (self.rows, self.columns, *self.geometry.kernel)

        def numbers(*size: int) -> Tensor:
            if integers:
                return torch.randint(-3, 4, size, generator=generator).to(dtype)
            return torch.randn(size, generator=generator, dtype=torch.float64).to(dtype)

        if self.rank and len(shape) == 4:
            kernel = sum(
                numbers(*shape[:2], shape[2], 1) * numbers(*shape[:2], 1, shape[3]) for _ in range(self.rank)
            )
            assert isinstance(kernel, Tensor)
            return kernel
        return numbers(*shape)

    def input(self, dtype: torch.dtype, integers: bool) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed + 1)
        shape = (self.batch, self.geometry.groups * self.columns, *self.sizes)
        if integers:
            return torch.randint(-4, 5, shape, generator=generator).to(dtype)
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    def bias_of(self, dtype: torch.dtype) -> Tensor | None:
        if self.bias is None:
            return None
        count = self.rows * (1 if self.bias == "shared" else self.geometry.groups)
        return torch.arange(1, count + 1).to(dtype)

    def reference(self, x: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
        """The convolution in groups, as torch computes it."""
        g = self.geometry
        if bias is not None and bias.numel() == self.rows:
            bias = bias.repeat(g.groups)
        if g.transposed:
            conv = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[g.dim - 1]
            weight = kernel.transpose(0, 1).flip(*range(2, 2 + g.dim)).repeat(g.groups, *[1] * (g.dim + 1))
            return conv(x, weight, bias, g.stride, g.padding, g.output_padding, g.groups, g.dilation)
        plain = (F.conv1d, F.conv2d, F.conv3d)[g.dim - 1]
        padding = g.padding
        if g.padding_mode != "zeros":
            x = F.pad(x, tuple(p for pad in reversed(g.padding) for p in (pad, pad)), mode=g.padding_mode)
            padding = (0,) * g.dim
        weight = kernel.repeat(g.groups, *[1] * (g.dim + 1))
        return plain(x, weight, bias, g.stride, padding, g.dilation, g.groups)

    def resample(self, x: Tensor, y: Tensor) -> Resample:
        shapes = tuple(x.shape), tuple(y.shape)
        groups = self.geometry.groups
        return resample_of(self.geometry, groups, self.rows, self.columns, self.block_diagonal, shapes)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Any convolution of one kernel that torch accepts, with sizes that keep it quick."""
    dim = draw(st.sampled_from([1, 2, 2, 2, 3]))
    transposed = draw(st.booleans())
    per_axis = lambda low, high: tuple(draw(st.integers(low, high)) for _ in range(dim))  # noqa: E731
    kernel = per_axis(1, 6 if dim < 3 else 3)
    stride, dilation = per_axis(1, 3), per_axis(1, 2)
    padding = tuple(draw(st.integers(0, 2)) for _ in range(dim))
    extra = tuple(draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True))
    mode = "zeros" if transposed or dim == 3 else draw(st.sampled_from(["zeros", "reflect", "replicate"]))
    groups = draw(st.integers(1, 4))
    rows, columns = draw(st.sampled_from([(1, 1), (1, 1), (1, 1), (2, 1), (1, 2), (2, 3)]))
    op = f"conv{'_transpose' if transposed else ''}{dim}d"
    sizes = tuple(draw(st.integers(3, 20 if dim < 3 else 5)) for _ in range(dim))
    channels = groups * columns, groups * rows
    geometry = ConvGeometry(
        op, *channels, groups, kernel, stride, padding, dilation, extra if transposed else (0,) * dim, mode
    )
    for size, k, s, p, d, e in zip(sizes, kernel, stride, padding, dilation, extra, strict=True):
        span = d * (k - 1)
        out = (size - 1) * s - 2 * p + span + e + 1 if transposed else size + 2 * p - span
        assume(out > 0)
    return Case(
        geometry,
        draw(st.integers(1, 3)),
        rows,
        columns,
        sizes,
        groups > 1 and draw(st.booleans()),
        draw(st.sampled_from([None, "shared", "channel"])),
        draw(st.integers(0, 99)),
        draw(st.integers(0, 3)),
    )


def lowered(
    name: str, case: Case, dtype: torch.dtype, integers: bool
) -> list[tuple[Proposal, Tensor, Tensor, Tensor]]:
    """What each proposal of a lowering gives, what it should give, and the size of the sums behind it."""
    x, kernel, bias = case.input(dtype, integers), case.kernel(dtype, integers), case.bias_of(dtype)
    expected = case.reference(x.double(), kernel.double(), None if bias is None else bias.double())
    resample = case.resample(x, expected)
    proposals, _ = propose(resample, kernel)
    size = case.reference(x.double().abs(), kernel.double().abs(), None if bias is None else bias.double())
    return [(p, build(p, resample, kernel, bias)(x), expected, size) for p in proposals if p.lowering == name]


@pytest.mark.parametrize("name", MODULES)
@FEW
@given(case=cases())
def test_float64_agrees(name: str, case: Case) -> None:
    """Law 2: the algebra holds; what is left is the rounding of float64."""
    for proposal, found, expected, size in lowered(name, case, torch.float64, integers=False):
        assert found.shape == expected.shape, proposal
        assert bool(((found - expected).abs() <= 1e-13 * (size + size.max())).all()), proposal


@pytest.mark.parametrize("name", [n for n in MODULES if n not in ("low_rank",)])
@FEW
@given(case=cases())
def test_small_integers_are_exact(name: str, case: Case) -> None:
    """Law 1: where every sum is exact, the bits are the same."""
    for proposal, found, expected, _ in lowered(name, case, torch.float32, integers=True):
        if proposal.lowering.startswith("separable"):
            continue  # its factors may not be integers
        assert torch.equal(found.double(), expected), proposal
