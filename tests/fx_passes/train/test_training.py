"""A shared kernel is trained right: its gradients, and all the ways torch trains a module."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck
from torch.autograd.gradcheck import GradcheckError
from torch.func import functional_call, grad, vmap
from torch.nn.utils import parametrizations

from fx_passes import find_shared_kernels
from fx_passes.kernels.expand import expand_kernel
from fx_passes.train.formulations import FORMULATIONS, Formulation, static_formulation
from fx_passes.train.shared_conv import SHARED_CLASSES, SharedKernelConv

ORDINARY = [nn.Conv1d, nn.Conv2d, nn.Conv3d]
TRANSPOSED = [nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d]
CLASSES = [*ORDINARY, *TRANSPOSED]
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


def make(
    cls: type[Any], blocks: tuple[int, int] = (1, 1), groups: int = 3, **arguments: Any
) -> SharedKernelConv:
    torch.manual_seed(0)
    channels = blocks[0] * groups, blocks[1] * groups
    arguments = {"kernel_size": 3, "dtype": torch.float64, **arguments}
    return SHARED_CLASSES[cls](*channels, groups=groups, **arguments)


def plain_of(shared: SharedKernelConv) -> Any:
    """torch's own class, every repeat written out."""
    cls = next(plain for plain, ours in SHARED_CLASSES.items() if ours is type(shared))
    plain = cls.__new__(cls)
    plain.__dict__.update(copy.deepcopy(shared).__dict__)
    plain.weight = nn.Parameter(expand_kernel(shared.weight.detach(), shared.groups).clone())
    if shared.bias is not None:
        plain.bias = nn.Parameter(shared.bias.detach().repeat(shared.groups))
    return plain


def image(shared: Any, batch: int = 2, size: int = 5) -> Tensor:
    dim = len(shared.kernel_size)
    return torch.randn(
        batch, shared.in_channels, *[size, size + 1, size - 1][:dim], dtype=shared.weight.dtype
    )


def require_gradients(shared: SharedKernelConv, x: Tensor) -> None:
    """Output, and gradients of input, kernel and bias: to 1e-12, the latter the sums over the groups."""
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


def formulations(cls: type[Any], **arguments: Any) -> list[Formulation]:
    """Those that train such a module."""
    usable: list[Formulation] = []
    for name in FORMULATIONS:
        if name == "separable":  # for fixed kernels
            continue
        try:
            make(cls, formulation=name, **arguments)
        except ValueError:
            continue
        usable.append(name)
    assert usable[:2] == ["auto", "grouped"]
    return usable


@pytest.mark.parametrize(("cls", "geometry"), CASES, ids=str)
def test_gradients_are_the_sums_over_the_groups(cls: type[Any], geometry: dict[str, Any]) -> None:
    """Every formulation, blocks of all shapes, no batch, an odd one, none at all."""
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
    """First and second derivatives against finite differences; of large blocks, along random directions."""
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
    """A kernel whose gradient is the mean over the groups, not the sum."""

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


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("cls", CLASSES)
def test_half_precision(cls: type[Any], dtype: torch.dtype) -> None:
    """Modules in half precision, and autocast around one in float32, train."""
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


@pytest.mark.parametrize("cls", [nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d])
def test_memory_formats(cls: type[Any]) -> None:
    """channels_last modules and inputs, and inputs that are views."""
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


@pytest.mark.parametrize("cls", CLASSES)
def test_torch_func(cls: type[Any]) -> None:
    """``grad`` of a loss, ``vmap`` over inputs, and ``vmap`` over kernels: an ensemble."""
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
    """One graph, forward and backward, with sizes fixed and open."""
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
    """deepcopy, pickle, and the meta device."""
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
    """weight_norm and spectral_norm are of the one kernel; both train."""
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
    """``torch.export`` sees one expanded convolution, whatever the formulation, and the pass finds it."""
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


FIXED = [
    ((5, 7), {"padding": (2, 3)}),
    ((3, 3), {"padding": 1, "padding_mode": "reflect", "stride": 2, "bias": False}),
    ((4, 2), {"dilation": (2, 3), "stride": (1, 2)}),
]


@pytest.mark.parametrize(("kernel", "geometry"), FIXED, ids=str)
def test_separable(kernel: tuple[int, int], geometry: dict[str, Any]) -> None:
    """A fixed kernel of rank 1: output, and gradients of input and bias; also compiled and exported."""
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
    """Of rank 0: the bias is what comes out."""
    shared = make(nn.Conv2d, formulation="separable")
    with torch.no_grad():
        shared.weight.zero_()
    shared.weight.requires_grad_(False)
    x = image(shared)
    assert torch.equal(shared(x), plain_of(shared)(x))


def test_separable_refuses_what_it_cannot_compute() -> None:
    """A kernel that is trained, and one of rank 2."""
    shared = make(nn.Conv2d, formulation="separable")
    with pytest.raises(RuntimeError, match="is for a fixed kernel"):
        shared(image(shared))
    shared.weight.requires_grad_(False)
    with pytest.raises(RuntimeError, match="the rank of the kernel is above 1"):
        shared(image(shared))


REFUSED = [
    (
        nn.Conv2d,
        {"formulation": "fast"},
        "it must be one of auto, grouped, channels_last, polyphase, separable",
    ),
    (nn.Conv1d, {"formulation": "channels_last"}, "a 1-D input has no channels-last order"),
    (nn.ConvTranspose2d, {"formulation": "polyphase"}, "the convolution is transposed"),
    (nn.Conv2d, {"formulation": "polyphase", "blocks": (2, 1)}, "a group has more than one input or output"),
    (nn.Conv1d, {"formulation": "separable"}, "a 1-D kernel is not separated"),
    (nn.Conv3d, {"formulation": "polyphase"}, "a 3-D convolution has no polyphase form"),
]


@pytest.mark.parametrize(("cls", "arguments", "message"), REFUSED, ids=str)
def test_formulations_that_do_not_fit(cls: type[Any], arguments: dict[str, Any], message: str) -> None:
    """The constructor says why."""
    with pytest.raises(ValueError, match=message):
        make(cls, **arguments)


@pytest.mark.parametrize(
    ("cls", "channels", "arguments", "expected"),
    [
        (nn.Conv2d, 3, {}, "channels_last"),
        (nn.Conv2d, 64, {}, "grouped"),
        (nn.Conv2d, 64, {"kernel_size": 7}, "channels_last"),
        (nn.Conv2d, 3, {"kernel_size": 31}, "polyphase"),
        (nn.Conv2d, 3, {"kernel_size": 31, "stride": 2}, "grouped"),
        (nn.Conv2d, 3, {"kernel_size": 7, "blocks": (2, 2)}, "grouped"),
        (nn.Conv1d, 3, {"kernel_size": 31}, "grouped"),
        (nn.ConvTranspose2d, 3, {"kernel_size": 7}, "grouped"),
    ],
)
def test_auto_goes_by_the_geometry(
    cls: type[Any], channels: int, arguments: dict[str, Any], expected: str
) -> None:
    """The rules of ``auto``, and that they compute what they name."""
    shared = make(cls, groups=channels, **arguments)
    assert static_formulation(shared) == expected
    fixed = make(cls, groups=channels, **arguments, formulation=expected)
    x = image(shared, size=33)
    assert torch.equal(shared(x), fixed(x))


def test_wrong_inputs_are_refused_by_torch() -> None:
    """Channels that do not fit, and images smaller than the kernel, whatever the formulation."""
    for name in formulations(nn.Conv2d):
        shared = make(nn.Conv2d, formulation=name)
        with pytest.raises(RuntimeError, match="to have 3 channels, but got 6"):
            shared(torch.randn(1, 6, 8, 8, dtype=torch.float64))
        with pytest.raises(RuntimeError, match="size"):
            shared(torch.randn(1, 3, 8, 2, dtype=torch.float64))
