"""Finds convolutions whose groups all repeat one kernel, and keeps that kernel once."""

from fx_passes.errors import CheckpointError, UsageError
from fx_passes.find.find_kernels import find_shared_kernels
from fx_passes.lower import Lower, lower
from fx_passes.plan import Choice, Plan
from fx_passes.records import ConvGeometry, ConvSite, Finding, Proposal, Refusal, SharedKernel, WeightOrigin
from fx_passes.share.share_kernels import ShareKernels, share_kernels
from fx_passes.share.unshare import UnshareKernels, unshare_kernels
from fx_passes.train.checkpoint import shared_state_dict
from fx_passes.train.optimizer import share_optimizer
from fx_passes.train.shared_conv import (
    SharedKernelConv1d,
    SharedKernelConv2d,
    SharedKernelConv3d,
    SharedKernelConvTranspose1d,
    SharedKernelConvTranspose2d,
    SharedKernelConvTranspose3d,
)

__version__ = "0.1.0"

__all__ = [
    "CheckpointError",
    "Choice",
    "ConvGeometry",
    "ConvSite",
    "Finding",
    "Lower",
    "Plan",
    "Proposal",
    "Refusal",
    "ShareKernels",
    "SharedKernel",
    "SharedKernelConv1d",
    "SharedKernelConv2d",
    "SharedKernelConv3d",
    "SharedKernelConvTranspose1d",
    "SharedKernelConvTranspose2d",
    "SharedKernelConvTranspose3d",
    "UnshareKernels",
    "UsageError",
    "WeightOrigin",
    "find_shared_kernels",
    "lower",
    "share_kernels",
    "share_optimizer",
    "shared_state_dict",
    "unshare_kernels",
]
