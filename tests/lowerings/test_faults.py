"""What did not hold once."""

from __future__ import annotations

import pytest
import torch
from cases import Case, make
from oracle import check
from torch import Tensor

from fx_passes.lowerings import build, propose
from fx_passes.lowerings.forms.base import Lowered


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


@pytest.mark.slow
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
