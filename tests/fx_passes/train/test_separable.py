"""The formulation ``separable``, for a fixed kernel of rank 1."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from shared_modules import image, make, plain_of
from torch import Tensor, nn

from fx_passes import find_shared_kernels

FIXED = [
    ((5, 7), {"padding": (2, 3)}),
    ((3, 3), {"padding": 1, "padding_mode": "reflect", "stride": 2, "bias": False}),
    ((4, 2), {"dilation": (2, 3), "stride": (1, 2)}),
]


@pytest.mark.parametrize(("kernel", "geometry"), FIXED, ids=str)
def test_separable(kernel: tuple[int, int], geometry: dict[str, Any]) -> None:
    """The output, and the gradients of input and bias, are right. The module can be compiled and exported."""
    shared = make(nn.Conv2d, kernel_size=kernel, formulation="separable", **geometry)
    with torch.no_grad():
        shared.weight.copy_(torch.outer(*(torch.randn(taps, dtype=torch.float64) for taps in kernel)))
    shared.weight.requires_grad_(False)
    plain = plain_of(shared)
    inputs = [torch.randn(3, 3, 17, 40, dtype=torch.float64).requires_grad_() for _ in range(2)]
    inputs[1].data.copy_(inputs[0].data)
    found, expected = shared(inputs[0]), plain(inputs[1])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-13)
    found.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad, rtol=0, atol=1e-12)
    if shared.bias is not None:
        assert isinstance(shared.bias, Tensor)
        torch.testing.assert_close(shared.bias.grad, plain.bias.grad.sum(0, keepdim=True))
    torch.compiler.reset()
    compiled = torch.compile(shared, fullgraph=True)
    torch.testing.assert_close(compiled(inputs[0]), expected, rtol=0, atol=1e-13)
    (finding,) = find_shared_kernels(torch.export.export(nn.Sequential(shared), (inputs[0],)))
    assert finding.shared


def test_separable_of_zeros() -> None:
    """A kernel of zeros has rank 0: the output is the bias."""
    shared = make(nn.Conv2d, formulation="separable")
    with torch.no_grad():
        shared.weight.zero_()
    shared.weight.requires_grad_(False)
    x = image(shared)
    assert torch.equal(shared(x), plain_of(shared)(x))


def test_separable_refuses_what_it_cannot_compute() -> None:
    """It refuses a kernel that is trained, and one of rank above 1."""
    shared = make(nn.Conv2d, formulation="separable")
    with pytest.raises(RuntimeError, match="is for a fixed kernel"):
        shared(image(shared))
    shared.weight.requires_grad_(False)
    with pytest.raises(RuntimeError, match="the rank of the kernel is above 1"):
        shared(image(shared))
