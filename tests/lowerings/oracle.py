"""What a lowering gives for a case, and what it may give: the original in float64 and a derived bound."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from cases import Case
from known import SIBLINGS, TESTED, VOLUMES
from torch import Tensor

from fx_passes.kernels.factor import factorise
from fx_passes.lowerings import build, by_parts, propose
from fx_passes.records import Proposal
from fx_passes.resample.axes import Resample


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
        allowed = allowed_error(factored(proposal), case, x, kernel, wide)
        found = build(proposal, resample, kernel, bias, case.siblings)(x)
        checked.append(Checked(case, proposal, found, expected, allowed, original))
    return checked


def of(name: str, resample: Resample, kernel: Tensor, siblings: int = 1) -> list[Proposal]:
    """What the way ``name`` proposes: a lowering, or all of them for siblings at once, or for the parts of a
    volume."""
    found, _ = propose(resample, kernel, siblings=siblings)
    return [p for p in found if _way(p, resample.dim) == name]


def _way(proposal: Proposal, dim: int) -> str:
    if proposal.merged:
        return SIBLINGS
    return VOLUMES if by_parts(proposal.lowering, dim) else proposal.lowering


def factored(proposal: Proposal) -> bool:
    """Whether a proposal computes with factors of the kernel."""
    return TESTED[proposal.lowering].factored or bool({"depth", "rows"} & dict(proposal.params).keys())


def gamma(roundings: int, dtype: torch.dtype) -> float:
    """The relative error of a term that goes through so many roundings (Higham 2002, lemma 3.1)."""
    total = roundings * torch.finfo(dtype).eps / 2
    return total / (1 - total)


def allowed_error(by_factors: bool, case: Case, x: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
    """gamma_n * (|w| * |x| + |b|), element by element.

    On the longest path are, directly: the rounding of a tap (scaled), its product, a sum for every other tap;
    through factors: two roundings, two products, sums of the row, of the column, of the rank. Then the
    rounding of the bias, and its sum. What is compared with was rounded alike, in float64.
    """
    taps, positive = case.geometry.kernel, replace(case, scale=abs(case.scale))
    bias = None if bias is None else bias.abs()
    weight, apart = kernel.double().abs(), torch.zeros(())
    if by_factors and len(taps) > 1:
        weight = torch.stack([_of_factors(block[0])[None] for block in kernel])
        # The factors may be off by 4 units in the last place of the largest tap.
        largest = 4 * torch.finfo(kernel.dtype).eps * float(kernel.abs().max())
        apart = positive.reference(x.double().abs(), torch.full_like(weight, largest), None)
    roundings = max(case.columns * weight[0, 0].numel(), sum(taps) + 3 * (len(taps) - 1)) + 4
    size = positive.reference(x.double().abs(), weight, bias)
    return (gamma(roundings, x.dtype) + gamma(roundings, torch.float64)) * size + apart


def _of_factors(kernel: Tensor) -> Tensor:
    """The sum of the products of the absolute values of the factors."""
    if kernel.ndim == 2:
        pairs = factorise(kernel, 3)
        assert pairs is not None
        return torch.stack([torch.outer(c.abs(), r.abs()) for c, r in pairs]).sum(0)
    pairs = factorise(kernel.flatten(1), 1)
    assert pairs is not None
    line, plane = pairs[0][0], pairs[0][1].reshape(kernel.shape[1:]).to(kernel.dtype)
    inner = plane.double().abs() if factorise(plane, 3) is None else _of_factors(plane)
    return line.abs()[:, None, None] * inner


def each(name: str, dtype: torch.dtype, integers: bool) -> list[Checked]:
    """All proposals on the examples of a lowering."""
    return [checked for case in TESTED[name].examples for checked in check(name, case, dtype, integers)]


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


def close(case: Case, found: Tensor, x: Tensor) -> bool:
    """Whether ``found`` is what a case computes from ``x``, up to rounding."""
    kernel, bias = case.kernel(torch.float32, False), case.bias_of(torch.float32)
    wide = None if bias is None else bias.double()
    allowed = allowed_error(bool(case.rank), case, x, kernel, wide)
    return bool(((found - case.reference(x.double(), kernel.double(), wide)).abs() <= allowed).all())
