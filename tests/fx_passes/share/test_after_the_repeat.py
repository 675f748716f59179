"""What a model does with a weight between the repeat and the convolution."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fx_passes import share_kernels


def casts_after(m: Function, x: Tensor) -> Tensor:
    return F.conv2d(x, m.p.repeat(4, 1, 1, 1).bfloat16().float(), groups=4)


def casts_to_input(m: Function, x: Tensor) -> Tensor:
    return F.conv2d(x, m.p.expand(4, -1, -1, -1).to(x), groups=4)


def detaches(m: Function, x: Tensor) -> Tensor:
    return F.conv2d(x, m.p.repeat(4, 1, 1, 1).detach(), groups=4)


def writes_one_group(m: Function, x: Tensor) -> Tensor:
    weight = m.p.repeat(4, 1, 1, 1)
    weight[0].mul_(2)
    return F.conv2d(x, weight, groups=4)


def writes_by_module(m: Function, x: Tensor) -> Tensor:
    weight = m.p.repeat(4, 1, 1, 1)
    m.act(weight)
    return F.conv2d(x, weight, groups=4)


def writes_diagonal(m: Function, x: Tensor) -> Tensor:
    weight = m.p.repeat(4, 1, 1, 1)
    weight.diagonal(0, 0, 2).zero_()
    return F.conv2d(x, weight, groups=4)


def adds_by_index(m: Function, x: Tensor) -> Tensor:
    lines = m.p[:, :, :, 0].flatten()
    pair = lines[[2, 0]].view(2, 1, 1, 1)
    pair = pair.index_put((torch.tensor([1]),), lines[1].view(1, 1, 1, 1), accumulate=True)
    return F.conv2d(x[:, :2], pair, groups=2)


class Function(nn.Module):
    """Computes ``function`` of itself and its input. It has a kernel and a ReLU in place."""

    def __init__(self, function: Callable[[Function, Tensor], Tensor]) -> None:
        super().__init__()
        self.function, self.act = function, nn.ReLU(inplace=True)
        self.p = nn.Parameter(torch.tensor([[[[1.0, 0, -1], [5, 0, -5], [6, 0, -6]]]]))

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


HARD = [
    casts_after,
    casts_to_input,
    detaches,
    writes_one_group,
    writes_by_module,
    writes_diagonal,
    adds_by_index,
]


@pytest.mark.parametrize("traced", [True, False], ids=["symbolic_trace", "torch.export"])
@pytest.mark.parametrize("function", HARD)
def test_between_the_repeat_and_the_convolution(
    function: Callable[[Function, Tensor], Tensor], traced: bool
) -> None:
    """Casts, detaches and writes after the repeat keep their effect: same bits, same gradients."""
    model, x = Function(function), torch.randn(1, 4, 8, 8)
    shared = share_kernels(model, None if traced else (x,))
    expected, found = model(x), shared(x)
    assert torch.equal(expected, found)
    assert expected.requires_grad == found.requires_grad
    if function is casts_to_input and traced:
        assert torch.equal(shared(x.double()), model(x.double()))
