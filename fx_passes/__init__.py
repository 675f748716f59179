"""Convolutions whose groups all repeat one kernel: find them, and keep that kernel once."""

from fx_passes.find import find_shared_kernels
from fx_passes.records import ConvGeometry, ConvSite, Finding, Refusal, SharedKernel, WeightOrigin
from fx_passes.share import ShareKernels, share_kernels
from fx_passes.shared_conv import (
    SharedKernelConv1d,
    SharedKernelConv2d,
    SharedKernelConv3d,
    SharedKernelConvTranspose1d,
    SharedKernelConvTranspose2d,
    SharedKernelConvTranspose3d,
)
from fx_passes.unshare import unshare_kernels

__all__ = [
    "ConvGeometry",
    "ConvSite",
    "Finding",
    "Refusal",
    "ShareKernels",
    "SharedKernel",
    "SharedKernelConv1d",
    "SharedKernelConv2d",
    "SharedKernelConv3d",
    "SharedKernelConvTranspose1d",
    "SharedKernelConvTranspose2d",
    "SharedKernelConvTranspose3d",
    "WeightOrigin",
    "find_shared_kernels",
    "share_kernels",
    "unshare_kernels",
]
