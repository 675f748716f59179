"""Shared modules work with what torch offers for modules."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from shared_modules import CLASSES, formulations, image, make, plain_of
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.utils import parametrizations

from fx_passes import find_shared_kernels


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("cls", CLASSES)
def test_half_precision(cls: type[Any], dtype: torch.dtype) -> None:
    """A module in half precision can be trained. So can one in float32 under autocast."""
    for name in formulations(cls, padding=1):
        shared = make(cls, padding=1, formulation=name, dtype=torch.float32)
        x = image(shared, size=8)
        expected = shared(x)
        half = copy.deepcopy(shared).to(dtype)
        found = half(x.to(dtype))
        found.float().sum().backward()
        assert half.weight.grad is not None
        assert found.dtype == half.weight.grad.dtype == dtype
        torch.testing.assert_close(found.float(), expected, rtol=0, atol=0.05)
        with torch.autocast("cpu", dtype):
            found = shared(x)
        found.float().sum().backward()
        assert found.dtype == dtype
        assert shared.weight.grad is not None
        assert shared.weight.grad.dtype == torch.float32
        torch.testing.assert_close(found.float(), expected, rtol=0, atol=0.05)


@pytest.mark.parametrize("cls", CLASSES)
def test_torch_func(cls: type[Any]) -> None:
    """``grad`` takes the gradient of a loss. ``vmap`` maps over inputs, and over an ensemble of kernels."""
    for name in formulations(cls, padding=1):
        shared = make(cls, padding=1, formulation=name)
        parameters: dict[str, Tensor] = dict(shared.named_parameters())
        x = image(shared)

        def loss(parameters: dict[str, Tensor], x: Tensor, shared: nn.Module = shared) -> Tensor:
            return functional_call(shared, parameters, (x,)).square().sum()

        found = grad(loss)(parameters, x)
        loss(parameters, x).backward()
        for key, parameter in shared.named_parameters():
            torch.testing.assert_close(found[key], parameter.grad)
        singly = vmap(grad(loss), (None, 0))(parameters, x.unsqueeze(1))
        for key, value in found.items():
            torch.testing.assert_close(singly[key].sum(0), value)
        stacked = {key: torch.stack([value, 2 * value]) for key, value in parameters.items()}
        several = vmap(lambda p, x=x, shared=shared: functional_call(shared, p, (x,)))(stacked)
        torch.testing.assert_close(several[1], 2 * several[0])
        torch.testing.assert_close(several[0], plain_of(shared)(x))


@pytest.mark.slow
@pytest.mark.parametrize("cls", [nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d])
@pytest.mark.parametrize("dynamic", [False, True])
def test_compiled(cls: type[Any], dynamic: bool) -> None:
    """torch.compile makes one graph, forward and backward, with fixed and with open sizes."""
    for name in formulations(cls, padding=1):
        shared = make(cls, padding=1, formulation=name)
        x = image(shared)
        expected = shared(x)
        expected.sum().backward()
        gradient, shared.weight.grad = shared.weight.grad, None
        torch.compiler.reset()
        found = torch.compile(shared, fullgraph=True, dynamic=dynamic)(x)
        found.sum().backward()
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(shared.weight.grad, gradient)


@pytest.mark.parametrize("cls", CLASSES)
def test_copies(cls: type[Any]) -> None:
    """deepcopy, pickle and the meta device work."""
    for name in formulations(cls, padding=1):
        shared = make(cls, padding=1, formulation=name)
        x = image(shared)
        buffer = io.BytesIO()
        torch.save(shared, buffer)
        buffer.seek(0)
        for twin in (copy.deepcopy(shared), torch.load(buffer, weights_only=False)):
            assert torch.equal(twin(x), shared(x))
            assert twin.formulation == name
        with torch.device("meta"):
            empty = make(cls, padding=1, formulation=name)
        assert empty(x.to("meta")).shape == shared(x).shape
        empty.to_empty(device="cpu").load_state_dict(shared.state_dict())
        assert torch.equal(empty(x), shared(x))


NORMS = [
    parametrizations.weight_norm,
    parametrizations.spectral_norm,
    nn.utils.weight_norm,  # by hooks, as older code has it
    nn.utils.spectral_norm,
]


@pytest.mark.parametrize("norm", NORMS, ids=lambda norm: f"{norm.__module__}.{norm.__name__}")
@pytest.mark.parametrize("cls", [nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d])
def test_parametrisations(cls: type[Any], norm: Any) -> None:
    """weight_norm and spectral_norm act on the one kernel. All their parameters get gradients."""
    for name in formulations(cls, padding=1):
        shared = norm(make(cls, padding=1, formulation=name))
        x = image(shared)
        for _ in range(2):
            shared(x).square().sum().backward()
        trained = [n for n, p in shared.named_parameters() if p.grad is not None]
        assert set(trained) == set(dict(shared.named_parameters()))
        found, weight = shared.eval()(x), shared.weight
        conv: Any = {nn.Conv1d: F.conv1d, nn.Conv2d: F.conv2d, nn.ConvTranspose1d: F.conv_transpose1d}[cls]
        expanded = weight.expand(3, *weight.shape[1:])
        torch.testing.assert_close(found, conv(x, expanded, shared.bias.repeat(3), padding=1, groups=3))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("cls", CLASSES)
def test_exported(cls: type[Any], training: bool) -> None:
    """``torch.export`` sees one expanded convolution, whatever the formulation. The pass finds it."""
    for name in formulations(cls, padding=1):
        shared = make(cls, padding=1, formulation=name)
        model = nn.Sequential(shared).train(training)
        x = image(shared)
        program = torch.export.export(model, (x,))
        torch.testing.assert_close(program.module()(x), model(x))
        (finding,) = find_shared_kernels(program)
        assert finding.shared, finding.reason
        assert finding.kernel is not None
        assert finding.kernel.shape == tuple(shared.weight.shape)
