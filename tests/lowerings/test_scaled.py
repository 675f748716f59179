"""Every lowering multiplies behind the sum where the groups have factors, and is right then, too."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from cases import Case
from known import TESTED
from oracle import of
from torch import Tensor

from fx_passes.lowerings import MODULES, build
from fx_passes.lowerings.forms.base import Lowered
from fx_passes.records import Proposal


def factors_of(case: Case) -> tuple[float, ...]:
    """A factor for each group: powers of two and their opposites, with which products are exact."""
    return tuple((-1.0) ** group * 2.0 ** (group % 4 - 1) for group in range(case.resample().groups))


def built(case: Case, proposal: Proposal, bias: Tensor | None, *, scaled: bool) -> Lowered:
    resample, kernel = case.resample(), case.kernel(torch.float64, integers=True)
    if scaled:
        resample = replace(resample, factors=factors_of(case))
    return build(proposal, resample, kernel, bias, case.siblings)


def expected(case: Case, proposal: Proposal, x: Tensor, bias: Tensor | None) -> Tensor:
    """Without factors and bias; then times the factors, then with the bias of each channel."""
    resample = case.resample()
    y = built(case, proposal, None, scaled=False)(x)
    scale = torch.tensor(factors_of(case), dtype=torch.float64).repeat_interleave(resample.rows)
    channels = y.reshape(-1, len(scale), *y.shape[-resample.dim :]) * scale.reshape(-1, *[1] * resample.dim)
    if bias is not None:
        wide = bias if bias.numel() == len(scale) else bias.repeat(resample.groups)
        channels = channels + (wide * resample.scale).reshape(-1, *[1] * resample.dim)
    return channels.reshape(y.shape)


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("name", TESTED)
def test_factors_of_the_groups(name: str, with_bias: bool) -> None:
    """Small integers are exact, so the numbers are equal. Without the factors they are not."""
    for case in TESTED[name].examples:
        x = case.input(torch.float64, integers=True)
        bias = torch.arange(1.0, 1 + case.rows, dtype=torch.float64) if with_bias else None
        for proposal in of(name, case.resample(), case.kernel(torch.float64, integers=True), case.siblings):
            found = built(case, proposal, bias, scaled=True)(x)
            assert torch.allclose(found, expected(case, proposal, x, bias), rtol=1e-12, atol=1e-9)
            if bool(found.any()):
                assert not torch.allclose(found, built(case, proposal, bias, scaled=False)(x))


def test_no_proposal_is_bitwise(monkeypatch: pytest.MonkeyPatch) -> None:
    """The weight of the model was multiplied before the sum, and rounded there, whatever a lowering says."""
    case = TESTED["grouped"].examples[0]
    boast = Proposal("grouped", (), "bitwise")
    monkeypatch.setattr(MODULES["grouped"], "propose", lambda resample, kernel: [boast])
    kernel = case.kernel(torch.float32, integers=False)
    assert of("grouped", case.resample(), kernel) == [boast]
    scaled = replace(case.resample(), factors=factors_of(case))
    assert of("grouped", scaled, kernel) == [replace(boast, exactness="reordered")]
