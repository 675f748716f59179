"""Groups that repeat a kernel only roughly: shared within a tolerance, or by force."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from models_to_share import passed
from torch import nn

from fx_passes import ShareKernels, UsageError, find_shared_kernels, share_kernels
from fx_passes.train.shared_conv import SharedKernelConv2d


def test_tolerance_takes_the_mean() -> None:
    """With a tolerance, the kernel is the mean of the groups."""
    conv = nn.Conv2d(2, 2, 1, groups=2, bias=False)
    conv.weight.data = torch.tensor([1.0, 1.5]).reshape(2, 1, 1, 1)
    assert share_kernels(nn.Sequential(conv)).get_parameter("0.weight").numel() == 2
    shared = share_kernels(nn.Sequential(conv), tolerance=0.3)
    assert shared.get_parameter("0.weight").item() == 1.25


def drifted() -> nn.Sequential:
    """Two convolutions whose repeats training has moved apart. One of them has blocks of (2, 1)."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3, groups=3), nn.ConvTranspose2d(6, 6, 3, groups=6))
    with torch.no_grad():
        for name, rows in (("0.weight", 2), ("1.weight", 1)):
            weight = model.get_parameter(name)
            repeated = weight[:rows].repeat(3 * 2 // rows, 1, 1, 1)[: len(weight)]
            weight.copy_(repeated + 0.01 * torch.randn(weight.shape))
    return model


@pytest.mark.parametrize("force", ["mean", "first"])
def test_force_says_what_it_changes(force: Any, caplog: pytest.LogCaptureFixture) -> None:
    """The kernel is as asked for. The log says the largest change of a weight, and a bound of the output."""
    model = drifted()
    findings = find_shared_kernels(model, force=force)
    with caplog.at_level("WARNING", logger="fx_passes"):
        shared = share_kernels(model, force=force)
    assert len(caplog.messages) == 2
    for index, finding in enumerate(findings):
        full, kernel = (m.get_parameter(f"{index}.weight").detach() for m in (model, shared))
        assert finding.kernel is not None
        slices = full.reshape(-1, *kernel.shape)
        wanted = slices[0] if force == "first" else slices.double().mean(0).float()
        torch.testing.assert_close(kernel, wanted, rtol=0, atol=0)
        assert finding.kernel.max_difference == float((slices - kernel).abs().max())
        assert finding.to_json()["output_change"] == finding.kernel.output_change
        assert f"up to {finding.kernel.max_difference:.3g}, and its output by" in caplog.messages[index]
        change = (slices - kernel).double()
        bound = finding.kernel.output_change
        assert bound == pytest.approx(float(change.abs().sum((2, 3, 4)).max()), rel=1e-6)
    # Inputs have magnitude 1. One with the signs of the largest change reaches the bound, none exceeds it.
    plain, one_kernel = model[0], shared.get_submodule("0")
    assert isinstance(one_kernel, SharedKernelConv2d)
    change = model.get_parameter("0.weight").detach() - one_kernel.expanded_weight().detach()
    worst = int(change.abs().sum((1, 2, 3)).argmax())
    x = change[worst].sign().expand(3, -1, -1).unsqueeze(0)
    first = findings[0].kernel
    assert first is not None
    moved = (one_kernel(x) - plain(x)).abs().max().item()
    assert moved == pytest.approx(first.output_change, rel=1e-4)
    for _ in range(20):
        x = torch.empty(1, 3, 8, 8).uniform_(-1, 1)
        moved = (one_kernel(x) - plain(x)).abs().max()
        assert moved <= first.output_change * (1 + 1e-5)


def test_force_is_for_the_sites_that_are_named() -> None:
    """Other sites have to repeat to the bit, as always. A name that no site has is an error."""
    model = drifted()
    shared = share_kernels(model, force="mean", sites=["1"])
    assert shared.get_parameter("0.weight").shape == (6, 1, 3, 3)
    assert shared.get_parameter("1.weight").shape == (1, 1, 3, 3)
    result = passed(ShareKernels(force="first", sites=["0"]), torch.fx.symbolic_trace(model))
    assert result.graph_module.get_parameter("0.weight").shape == (2, 1, 3, 3)
    with pytest.raises(UsageError, match="sites must be a collection of ids, not the text '10'"):
        share_kernels(model, force="mean", sites="10")
    with pytest.raises(UsageError, match="no convolution `2`; its candidates are: 0, 1"):
        share_kernels(model, force="mean", sites=["0", "2"])


def test_half_precision_does_not_overflow() -> None:
    """Two finite repeats differ by more than float16 can hold."""
    conv = nn.Conv1d(2, 2, 1, groups=2, bias=False, dtype=torch.float16)
    conv.weight.data = torch.tensor([6e4, -6e4], dtype=torch.float16).reshape(2, 1, 1)
    (finding,) = find_shared_kernels(conv, force="first")
    exact = float(torch.tensor(6e4, dtype=torch.float16)) * 2
    assert finding.kernel is not None
    assert finding.kernel.max_difference == finding.kernel.output_change == exact


def test_what_force_cannot_share() -> None:
    """A NaN is refused, and an infinity, and an unknown way to choose."""
    model = drifted()
    model.get_parameter("0.weight").data[3, 0, 0, 0] = torch.inf
    model.get_parameter("1.weight").data[0, 0, 0, 0] = torch.nan
    first, second = find_shared_kernels(model, force="mean")
    assert first.reason == (
        "group 0 is inf away from the mean of the groups at [1, 0, 0, 0], and nothing finite is between"
    )
    assert str(second.reason).startswith("the weight is NaN at [0, 0, 0, 0]")
    with pytest.raises(ValueError, match="force must be 'mean' or 'first', got 'median'"):
        share_kernels(model, force="median")  # type: ignore[arg-type]  # what is refused
