"""Shared convolutions of every class and formulation, and torch's own to compare with."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from fx_passes.kernels.expand import expand_kernel
from fx_passes.train.formulations import FORMULATIONS, Formulation
from fx_passes.train.shared_conv import SHARED_CLASSES, SharedKernelConv

ORDINARY = [nn.Conv1d, nn.Conv2d, nn.Conv3d]
TRANSPOSED = [nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d]
CLASSES = [*ORDINARY, *TRANSPOSED]


def make(
    cls: type[Any], blocks: tuple[int, int] = (1, 1), groups: int = 3, **arguments: Any
) -> SharedKernelConv:
    """Make a shared convolution in place of ``cls``. Its kernel is 3 wide and float64, if not given."""
    torch.manual_seed(0)
    channels = blocks[0] * groups, blocks[1] * groups
    arguments = {"kernel_size": 3, "dtype": torch.float64, **arguments}
    return SHARED_CLASSES[cls](*channels, groups=groups, **arguments)


def plain_of(shared: SharedKernelConv) -> Any:
    """Return torch's own module for a shared one, with every repeat written out."""
    cls = next(plain for plain, ours in SHARED_CLASSES.items() if ours is type(shared))
    plain = cls.__new__(cls)
    plain.__dict__.update(copy.deepcopy(shared).__dict__)
    plain.weight = nn.Parameter(expand_kernel(shared.weight.detach(), shared.groups).clone())
    if shared.bias is not None:
        plain.bias = nn.Parameter(shared.bias.detach().repeat(shared.groups))
    return plain


def image(shared: Any, batch: int = 2, size: int = 5) -> Tensor:
    """Return a random input for a convolution of 1, 2 or 3 dimensions."""
    dim = len(shared.kernel_size)
    return torch.randn(
        batch, shared.in_channels, *[size, size + 1, size - 1][:dim], dtype=shared.weight.dtype
    )


def formulations(cls: type[Any], **arguments: Any) -> list[Formulation]:
    """Return the formulations that can train such a module."""
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
