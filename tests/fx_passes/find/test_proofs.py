"""What proves that all groups have one kernel: how it was made, or its values."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from one_convolution import Call, K, only, repeat_first_group
from torch import Tensor, nn

from fx_passes import find_shared_kernels

CONSTRUCTIONS = {
    "expand": lambda m, x: F.conv2d(x, m.k.expand(4, -1, -1, -1), groups=4),
    "repeat": lambda m, x: F.conv2d(x, m.k.repeat(4, 1, 1, 1), groups=4),
    "repeat by input size": lambda m, x: F.conv2d(x, m.k.repeat(x.shape[1], 1, 1, 1), groups=x.shape[1]),
    "cat": lambda m, x: F.conv2d(x, torch.cat([m.k] * 4), groups=4),
    "repeat_interleave": lambda m, x: F.conv2d(x, m.k.repeat_interleave(4, 0), groups=4),
    "flip and transpose": lambda m, x: F.conv2d(x, m.k.flip(2).transpose(2, 3).repeat(4, 1, 1, 1), groups=4),
    "repeat then flip": lambda m, x: F.conv2d(x, m.k.repeat(4, 1, 1, 1).flip(-1), groups=4),
    "reshape": lambda m, x: F.conv2d(x, m.k.view(3, 3).expand(4, 1, 3, 3).reshape(4, 1, 3, 3), groups=4),
    "computed kernel": lambda m, x: F.conv2d(x, (m.k * m.k / m.k.sum()).expand(4, 1, 3, 3), groups=4),
    "stack": lambda m, x: F.conv2d(x, torch.stack([m.k[0]] * 4), groups=4),
    "to": lambda m, x: F.conv2d(x, m.k.to(x.dtype).repeat(4, 1, 1, 1), groups=4),
    "zeros and index_put": lambda m, x: F.conv2d(x, diagonal(x, m.k)),
}


def diagonal(x: Tensor, k: Tensor) -> Tensor:
    weight = x.new_zeros([4, 4, 3, 3])
    indices = torch.arange(4)
    weight[indices, indices] = k[0].expand(4, -1, -1)
    return weight


@pytest.mark.parametrize("trainable", [True, False], ids=["parameter", "buffer"])
@pytest.mark.parametrize("name", CONSTRUCTIONS)
def test_repeats_by_construction(name: str, trainable: bool) -> None:
    """The kernel is shared whatever its values are. It may be a parameter or a buffer."""
    finding = only(Call(CONSTRUCTIONS[name], K.clone(), trainable), torch.randn(1, 4, 8, 8))
    assert finding.shared, finding.reason
    assert finding.groups == 4
    assert finding.kernel_shape == (1, 1, 3, 3)
    assert finding.kernel is not None
    assert finding.kernel.proof == "construction"


def test_repeat_of_an_input() -> None:
    """A kernel that is an input has no values yet. Its expand proves that it is shared."""

    class RunTime(nn.Module):
        def forward(self, x: Tensor, k: Tensor) -> Tensor:
            return F.conv2d(x, k.expand(4, -1, -1, -1), groups=4)

    finding = only(RunTime(), torch.randn(1, 4, 8, 8), K)
    assert finding.shared
    assert finding.origin == "computed"


def test_constant_arithmetic_is_folded_and_compared() -> None:
    """Arithmetic after the repeat proves nothing by construction. Its constant value proves it."""

    def gaussian(m: nn.Module, x: Tensor) -> Tensor:
        line = torch.exp(-(torch.arange(3.0) ** 2))
        weight = torch.outer(line, line).repeat(4, 1, 1, 1) * x.new_ones(4, 1, 3, 3)
        return F.conv2d(x, weight / weight.sum(), groups=4)

    finding = only(Call(gaussian, K), torch.randn(1, 4, 8, 8))
    assert finding.shared, finding.reason
    assert finding.kernel is not None
    assert finding.kernel.proof == "values"


def test_dense_block_diagonal_parameter() -> None:
    """A dense convolution of equal diagonal blocks is a site with one group for each block."""
    conv = nn.Conv2d(4, 4, 3)
    conv.weight.data.zero_()
    conv.weight.data[range(4), range(4)] = K[0, 0]
    finding = only(nn.Sequential(conv))
    assert finding.shared
    assert finding.kernel is not None
    assert finding.kernel.block_diagonal
    assert finding.groups == 4


def test_tolerance_shares_what_is_nearly_equal() -> None:
    """Within the tolerance a site is shared. The finding says how much the weights change."""
    conv = repeat_first_group(nn.Conv2d(4, 4, 3, groups=4))
    conv.weight.data[1] += 1e-4
    model = nn.Sequential(conv)
    assert not only(model).shared
    finding = only(model, tolerance=1e-3)
    assert finding.kernel is not None
    assert finding.kernel.max_difference == pytest.approx(7.5e-5, rel=1e-2)


def test_negative_tolerance_is_refused() -> None:
    """A tolerance below zero is an error. It is not taken as zero."""
    with pytest.raises(ValueError, match="tolerance must be 0 or more"):
        find_shared_kernels(nn.Conv2d(2, 2, 1, groups=2), tolerance=-1.0)
