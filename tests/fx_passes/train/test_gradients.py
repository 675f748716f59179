"""The gradient of a shared kernel is the sum of the gradients of its repeats."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from shared_modules import ORDINARY, TRANSPOSED, formulations, image, make, plain_of
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck
from torch.autograd.gradcheck import GradcheckError
from torch.func import functional_call

from fx_passes.train.shared_conv import SharedKernelConv

GEOMETRIES: list[dict[str, Any]] = [
    {},
    {"stride": 2, "padding": 1},
    {"dilation": 2, "padding": 2},
    *({"padding": 1, "padding_mode": mode} for mode in ("reflect", "replicate", "circular")),
    {"padding": "same"},
]
TRANSPOSED_GEOMETRIES: list[dict[str, Any]] = [
    {},
    {"stride": 2, "padding": 1, "output_padding": 1},
    {"dilation": 2, "stride": 3, "output_padding": 2},
]
CASES = [
    *((cls, geometry) for cls in ORDINARY for geometry in GEOMETRIES),
    *((cls, geometry) for cls in TRANSPOSED for geometry in TRANSPOSED_GEOMETRIES),
]


def require_gradients(shared: SharedKernelConv, x: Tensor) -> None:
    """Require the same output and gradients as torch's own module, to 1e-12. Those of kernel and bias are
    sums over the groups."""
    shared.zero_grad()
    plain = plain_of(shared)
    inputs = [x.clone().requires_grad_(), x.clone().requires_grad_()]
    found, expected = shared(inputs[0]), plain(inputs[1])
    assert found.stride() == expected.stride() or not expected.numel()
    seed = torch.randn_like(expected)
    (found * seed).sum().backward()
    (expected * seed).sum().backward()
    pairs = [(found, expected), (inputs[0].grad, inputs[1].grad)]
    for name, parameter in shared.named_parameters():
        full = plain.get_parameter(name).grad
        assert full is not None
        pairs.append((parameter.grad, full.reshape(shared.groups, *parameter.shape).sum(0)))
    for one, other in pairs:
        largest = float(other.detach().abs().max()) if other.numel() else 0.0
        assert one.shape == other.shape
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12 * largest)


@pytest.mark.parametrize(("cls", "geometry"), CASES, ids=str)
def test_gradients_are_the_sums_over_the_groups(cls: type[Any], geometry: dict[str, Any]) -> None:
    """This holds for every formulation, for blocks of all shapes, and for batches of 3, 1, 0, and none."""
    for name in formulations(cls, **geometry):
        blocked = [(2, 1), (1, 2), (2, 3)] if name in ("auto", "grouped", "channels_last") else []
        for blocks in [(1, 1), *blocked]:
            for batch in (3, 1, 0):
                shared = make(cls, blocks, formulation=name, **geometry)
                require_gradients(shared, image(shared, batch))
        shared = make(cls, formulation=name, bias=False, **geometry)
        require_gradients(shared, image(shared)[0])


@pytest.mark.slow
@pytest.mark.parametrize(("cls", "geometry"), CASES, ids=str)
def test_gradcheck(cls: type[Any], geometry: dict[str, Any]) -> None:
    """First and second derivatives agree with finite differences. Large blocks are checked along random
    directions."""
    geometry = {**geometry, "kernel_size": 2 if cls in TRANSPOSED else 3}
    cases = [(name, (1, 1)) for name in formulations(cls, **geometry)]
    for name, blocks in [*cases, ("grouped", (2, 3))]:
        shared = make(cls, blocks, groups=2, formulation=name, **geometry)
        x = image(shared, 1, 4).requires_grad_()

        def call(x: Tensor, weight: Tensor, bias: Tensor, shared: nn.Module = shared) -> Tensor:
            return functional_call(shared, {"weight": weight, "bias": bias}, (x,))

        inputs = x, shared.weight, shared.get_parameter("bias")
        assert gradcheck(call, inputs, fast_mode=blocks != (1, 1))
        assert gradgradcheck(call, inputs, fast_mode=blocks != (1, 1))


def test_a_mean_in_place_of_the_sum_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: the gradient of this kernel is the mean over the groups, not the sum."""

    class Mean(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, kernel: Tensor, groups: int) -> Tensor:
            ctx.groups = groups
            return kernel.repeat(groups, 1, 1)

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
            return gradient.reshape(ctx.groups, -1, *gradient.shape[1:]).mean(0), None

    shared = make(nn.Conv1d, formulation="grouped")
    monkeypatch.setattr(type(shared), "expanded_weight", lambda self: Mean.apply(self.weight, self.groups))
    x = image(shared, 1)
    with pytest.raises(AssertionError):
        require_gradients(shared, x)
    with pytest.raises(GradcheckError):
        gradcheck(lambda weight: functional_call(shared, {"weight": weight}, (x,)), (shared.weight,))


@pytest.mark.parametrize("cls", [nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d])
def test_memory_formats(cls: type[Any]) -> None:
    """Modules and inputs may be channels_last, and inputs may be views."""
    last = torch.channels_last if cls in (nn.Conv2d, nn.ConvTranspose2d) else torch.channels_last_3d
    for name in formulations(cls, padding=1):
        shared = make(cls, padding=1, formulation=name)
        x = image(shared, 3)
        require_gradients(shared, x.contiguous(memory_format=last))
        require_gradients(shared, x.transpose(-1, -2))
        require_gradients(shared, x[::2])
        # The stub of `Module.to` lacks the one argument that is by keyword alone.
        shared = shared.to(memory_format=last)  # type: ignore[call-overload]
        require_gradients(shared, x.contiguous(memory_format=last))
