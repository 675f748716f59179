"""The private classes and methods of torch's convolutions and batch norms."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fx_passes.graph import torch_internals as internals


def test_conv_nd() -> None:
    """It is the class of all convolutions, also lazy and transposed ones. It knows their geometry."""
    for conv in (nn.Conv1d(2, 2, 3), nn.ConvTranspose3d(2, 2, 3), nn.LazyConv2d(2, 3)):
        assert isinstance(conv, internals.ConvNd)
    other = nn.ConvTranspose2d(2, 4, 3, groups=2)
    assert other.transposed
    assert (other.kernel_size, other.groups, other.output_padding) == ((3, 3), 2, (0, 0))
    assert not isinstance(nn.Linear(2, 2), internals.ConvNd)


def test_conv_transpose_nd() -> None:
    """It is the class of transposed convolutions alone, below the class of all."""
    assert isinstance(nn.ConvTranspose1d(2, 2, 3), internals.ConvTransposeNd)
    assert not isinstance(nn.Conv1d(2, 2, 3), internals.ConvTransposeNd)
    assert issubclass(internals.ConvTransposeNd, internals.ConvNd)


@pytest.mark.parametrize("padding", ["same", (1, 2)])
def test_reversed_padding(padding: Any) -> None:
    """The padding is in the order of ``F.pad``: the last dimension comes first."""
    conv = nn.Conv2d(1, 1, (3, 4), padding=padding, padding_mode="circular", bias=False)
    found = internals.reversed_padding(conv)
    assert list(found) == ([1, 2, 1, 1] if padding == "same" else [2, 2, 1, 1])
    x = torch.rand(1, 1, 6, 6)
    assert torch.equal(conv(x), F.conv2d(F.pad(x, found, mode="circular"), conv.weight))


def test_output_padding() -> None:
    """The padding makes the output as large as asked. torch raises an error where none does."""
    conv, x = nn.ConvTranspose1d(1, 1, 3, stride=2, output_padding=1), torch.rand(1, 1, 4)
    assert list(internals.output_padding(conv, x, None)) == [1]
    assert list(internals.output_padding(conv, x, [9])) == [0]
    with pytest.raises(ValueError, match="requested an output size"):
        internals.output_padding(conv, x, [50])


def test_has_own_forward() -> None:
    """A convolution calls two methods. A method of the module itself comes before that of its class."""
    x = torch.rand(1, 1, 3)
    for name in ("forward", "_conv_forward"):
        conv = nn.Conv1d(1, 1, 1)
        assert not internals.has_own_forward(conv)
        setattr(conv, name, lambda *args: args[0] * 0 + 7)
        assert internals.has_own_forward(conv)
        assert torch.equal(conv(x), torch.full_like(x, 7))
