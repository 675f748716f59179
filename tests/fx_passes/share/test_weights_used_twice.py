"""A weight that a model uses twice, or a module that has two names."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from models_to_share import passed, seed_model
from torch import Tensor, nn

from fx_passes import ShareKernels, find_shared_kernels, share_kernels


def test_tied_weights_stay_tied() -> None:
    """One parameter in two layers becomes one kernel in two shared layers."""
    first = nn.Conv2d(4, 4, 3, groups=4, bias=False)
    first.weight.data = torch.randn(1, 1, 3, 3).repeat(4, 1, 1, 1)
    second = nn.Conv2d(4, 4, 3, groups=4, bias=False)
    second.weight = first.weight
    model, x = nn.Sequential(first, second), torch.randn(1, 4, 8, 8)
    for given in (model, torch.export.export(model, (x,)).module()):
        shared = share_kernels(given)
        assert len(list(shared.parameters())) == 1
        assert shared.get_parameter("0.weight") is shared.get_parameter("1.weight")
        assert torch.equal(shared(x), model(x))


def test_weight_shared_with_another_use_is_left_alone() -> None:
    """The model also computes an output from the weight. The weight stays whole."""

    class Regularised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(1, 1, 3, 3).repeat(4, 1, 1, 1))

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return F.conv2d(x, self.weight, groups=4), self.weight.square().sum()

    model = Regularised()
    assert not passed(ShareKernels(), torch.fx.symbolic_trace(model)).modified
    (finding,) = find_shared_kernels(model)
    assert finding.reason == "`weight` is also used by `square`"


def test_two_sites_with_one_weight_in_different_groups_are_refused() -> None:
    """One weight has 4 groups of 1 here and 2 groups of 2 there. It cannot be cut for both."""

    class TwoWays(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(1, 1, 3, 3).repeat(4, 1, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            return F.conv2d(x, self.weight, groups=4) + F.conv2d(x[:, :2], self.weight, groups=2)

    findings = find_shared_kernels(TwoWays())
    assert [f.shared for f in findings] == [False, False]
    assert findings[1].reason is not None
    assert findings[1].reason.endswith("which repeats a kernel in it differently")


def test_one_module_under_two_names_stays_one() -> None:
    """The graph does not read the second name. It still gets the new module."""
    conv, _, x = seed_model()

    class Aliased(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = conv
            self.layers = nn.ModuleList([conv])

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x.to(self.conv.weight.dtype))

    shared = share_kernels(Aliased())
    assert torch.equal(shared(x), conv(x))
    assert shared.get_parameter("layers.0.weight") is shared.get_parameter("conv.weight")
