"""The six shared convolutions against torch's own, with every repeat written out."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fx_passes.kernels.expand import expand_block_diagonal, expand_kernel
from fx_passes.train.shared_conv import SHARED_CLASSES, SharedKernelConv2d

ORDINARY = [nn.Conv1d, nn.Conv2d, nn.Conv3d]
TRANSPOSED = [nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d]
PADDINGS = [
    {"padding": 0},
    {"padding": 2},
    {"padding": "same"},
    {"padding": "valid"},
    *({"padding": 1, "padding_mode": mode} for mode in ("reflect", "replicate", "circular")),
]


def repeated(plain: nn.Module, shared: Any) -> nn.Module:
    """``plain`` with the weights of ``shared``, every repeat written out."""
    plain.get_parameter("weight").data = expand_kernel(shared.weight.detach(), shared.groups).clone()
    if shared.bias is not None:
        plain.get_parameter("bias").data = shared.bias.detach().repeat(shared.groups)
    return plain


def image(dim: int, channels: int, batch: int = 2) -> Tensor:
    return torch.randn(batch, channels, *[9, 8, 7][:dim], dtype=torch.float64)


def require_same(cls: type[nn.Module], arguments: dict, blocks: tuple[int, int], batch: int = 2) -> None:
    """Equal bits out, and kernel gradients that are the sums over the groups of the repeats' gradients."""
    groups = 3
    channels = blocks[0] * groups, blocks[1] * groups
    arguments = {"kernel_size": 3, "groups": groups, "dtype": torch.float64, **arguments}
    shared = SHARED_CLASSES[cls](*channels, formulation="grouped", **arguments)
    plain = repeated(cls(*channels, **arguments), shared)
    x = image(shared.weight.ndim - 2, channels[0], batch)
    expected, found = plain(x), shared(x)
    assert torch.equal(expected, found)
    seed = torch.randn_like(expected)
    (expected * seed).sum().backward()
    (found * seed).sum().backward()
    for name, parameter in shared.named_parameters():
        full = plain.get_parameter(name).grad
        assert full is not None
        summed = full.reshape(groups, *parameter.shape).sum(0)
        torch.testing.assert_close(parameter.grad, summed, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("blocks", [(1, 1), (1, 2), (2, 1), (2, 3)])
@pytest.mark.parametrize("padding", PADDINGS, ids=str)
@pytest.mark.parametrize("cls", ORDINARY)
def test_ordinary(cls: type[nn.Module], padding: dict, blocks: tuple[int, int]) -> None:
    """All padding modes and block sizes, with stride and dilation where torch allows them."""
    require_same(cls, padding, blocks)
    if padding["padding"] != "same":
        require_same(cls, {**padding, "stride": 2, "dilation": 2}, blocks)


@pytest.mark.parametrize("blocks", [(1, 1), (1, 2), (2, 1), (2, 3)])
@pytest.mark.parametrize(("stride", "padding", "output_padding"), [(1, 0, 0), (2, 1, 0), (3, 1, 2)])
@pytest.mark.parametrize("cls", TRANSPOSED)
def test_transposed(
    cls: type[nn.Module], stride: int, padding: int, output_padding: int, blocks: tuple[int, int]
) -> None:
    """Stride, padding, output_padding and dilation, for blocks of every shape."""
    arguments = {"stride": stride, "padding": padding, "output_padding": output_padding}
    require_same(cls, arguments, blocks)
    require_same(cls, {**arguments, "dilation": 2}, blocks)


@pytest.mark.parametrize("cls", [*ORDINARY, *TRANSPOSED])
def test_without_bias_and_without_batch(cls: type[nn.Module]) -> None:
    """bias=False, an empty batch, and an input without a batch dimension."""
    require_same(cls, {"bias": False}, (1, 1))
    require_same(cls, {}, (1, 1), batch=0)
    shared = SHARED_CLASSES[cls](3, 3, 3, groups=3, dtype=torch.float64)
    x = image(shared.weight.ndim - 2, 3)
    torch.testing.assert_close(shared(x[0]), shared(x)[0], rtol=1e-12, atol=1e-12)


def test_output_size_reaches_the_transposed_convolution() -> None:
    """``output_size`` picks the output padding, as in torch."""
    shared = SHARED_CLASSES[nn.ConvTranspose2d](3, 3, 3, stride=2, groups=3)
    plain = repeated(nn.ConvTranspose2d(3, 3, 3, stride=2, groups=3), shared)
    x = torch.randn(1, 3, 5, 5)
    assert torch.equal(shared(x, output_size=[12, 12]), plain(x, output_size=[12, 12]))


def test_expanded_weight_is_a_view_of_the_parameter() -> None:
    """No copy: stride 0 over the groups, the parameter's own memory."""
    shared = SHARED_CLASSES[nn.Conv2d](8, 8, 3, groups=8)
    weight = shared.expanded_weight()
    assert weight.shape == (8, 1, 3, 3)
    assert weight.stride(0) == 0
    assert weight.data_ptr() == shared.weight.data_ptr()


def test_bias_may_stay_per_channel() -> None:
    """A bias of out_channels elements is used as it is."""
    shared = SHARED_CLASSES[nn.Conv1d](4, 4, 3, groups=4)
    shared.bias = nn.Parameter(torch.arange(4.0))
    nn.init.zeros_(shared.weight)
    assert torch.equal(shared(torch.ones(1, 4, 3)).flatten(), torch.arange(4.0))


@pytest.mark.parametrize("cls", [nn.Conv2d, nn.ConvTranspose2d])
def test_block_diagonal_computes_the_dense_convolution(cls: type[nn.Module]) -> None:
    """``block_diagonal=True`` has the bits of the dense convolution, NaN spreading included."""
    shared = SHARED_CLASSES[cls](4, 6, 3, groups=2, block_diagonal=True)
    dense = cls(4, 6, 3)
    dense.weight.data = shared.expanded_weight().detach().clone()
    dense.bias.data = shared.get_parameter("bias").detach().repeat(2)
    x = torch.randn(1, 4, 8, 8)
    x[0, 0, 4, 4] = torch.nan
    assert torch.equal(torch.isnan(dense(x)), torch.isnan(shared(x)))
    assert torch.equal(dense(x).nan_to_num(), shared(x).nan_to_num())


def test_zeros_off_the_blocks_are_positive() -> None:
    """A negative kernel leaves +0.0 beside it: -0.0 would flip the sign of a zero output."""
    dense = expand_block_diagonal(-torch.ones(1, 1, 1), 3)
    off = dense.squeeze(-1)[~torch.eye(3, dtype=torch.bool)]
    assert not torch.signbit(off).any()


@pytest.mark.parametrize(("rows", "groups"), list(itertools.product([1, 2, 3], [1, 2, 5])))
def test_expand_kernel_repeats(rows: int, groups: int) -> None:
    """The expansion is ``repeat`` along dimension 0, bit for bit."""
    kernel = torch.randn(rows, 2, 3)
    assert torch.equal(expand_kernel(kernel, groups), kernel.repeat(groups, 1, 1))


def test_extra_repr_shows_the_kernel() -> None:
    """Printing a model shows which convolutions are shared, and the one kernel."""
    text = repr(SHARED_CLASSES[nn.Conv2d](4, 4, 3, groups=4, block_diagonal=True))
    assert text.startswith("SharedKernelConv2d(4, 4,")
    assert "kernel=(1, 1, 3, 3), block_diagonal=True" in text


@pytest.mark.parametrize("size", [3, 15])
def test_a_weight_of_every_repeat_is_refused(size: int) -> None:
    """It would be another convolution, or one whose other repeats are never read."""
    conv = SharedKernelConv2d(3, 3, size, groups=3, bias=False)
    conv.weight.data = torch.rand(1, 1, size, size).repeat(3, 1, 1, 1)
    with pytest.raises(
        ValueError, match=rf"\[3, 1, {size}, {size}\] is not the kernel of one group, \[1, 1, "
    ):
        conv(torch.rand(1, 3, 32, 32))
