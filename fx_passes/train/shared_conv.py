"""Convolutions that hold one kernel and expand it over their groups.

Six classes, one for each of ``torch.nn.Conv1d/2d/3d`` and ``ConvTranspose1d/2d/3d``; each takes the
arguments of the class it replaces. The parameter ``weight`` is the kernel of one group, ``bias`` the
bias of one group, and at run time

    weight.expand(groups, ...)   ->   the weight of the torch class, every group a view of the parameter

so that the gradient of the parameter is the sum over the groups of the gradients of the repeats.
For out/groups > 1 the groups of the expanded view cannot be merged into dimension 0 by strides
alone; there, ``reshape`` materialises the weight for the one call, and the gradient still sums.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fx_passes.graph.torch_internals import (
    BeforeLoading,
    ConvNd,
    ConvTransposeNd,
    output_padding,
    parameters_held,
    reversed_padding,
)
from fx_passes.kernels.expand import expand_block_diagonal, expand_kernel
from fx_passes.train import formulations
from fx_passes.train.checkpoint import Cut, cut_down
from fx_passes.train.formulations import Formulation, formulation_refusal, require_kernel, static_formulation


class SharedKernelConv(BeforeLoading, ConvNd):
    """What the six classes share: one kernel parameter, expanded at run time.

    Args:
        formulation: how it is computed, see ``formulations.py``; ``"auto"`` is what is fast for training.
        block_diagonal: compute the dense convolution (groups = 1) whose weight has the kernel on its
            ``groups`` diagonal blocks and zero elsewhere, with the bits of the dense convolution: zeros are
            multiplied too, so that an Inf or NaN reaches the channels it reached before.

    Raises:
        ValueError: the formulation does not compute such a convolution.
    """

    formulation: Formulation = "grouped"  # of modules that were saved before there was a choice

    def __init__(
        self, *args: Any, formulation: Formulation = "auto", block_diagonal: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.block_diagonal = block_diagonal
        if refusal := formulation_refusal(formulation, self):
            raise ValueError(f"formulation={formulation!r}: {refusal}")
        self.formulation = formulation
        repeated = self.weight
        self.weight = nn.Parameter(repeated.detach()[: repeated.shape[0] // self.groups].clone())
        if self.bias is not None:
            self.bias = nn.Parameter(self.bias.detach()[: self.out_channels // self.groups].clone())

    def expanded_weight(self) -> Tensor:
        """The weight as the torch class would hold it; a view of the kernel where one row is one group."""
        expand = expand_block_diagonal if self.block_diagonal else expand_kernel
        return expand(self.weight, self.groups, self.kernel_shape)

    def expanded_bias(self) -> Tensor | None:
        """The bias (out_channels,), or None; a bias that is kept per channel passes through."""
        if self.bias is None:
            return None
        # Not through the attribute, which a tracer may replace by a proxy without a shape.
        bias = parameters_held(self).get("bias")
        shape = tuple((self.bias if bias is None else bias).shape)
        return self.bias if shape == (self.out_channels,) else expand_kernel(self.bias, self.groups, shape)

    @property
    def kernel_shape(self) -> tuple[int, ...]:
        """The shape of the kernel of one group, by channels, groups and sizes."""
        out_in = self.out_channels // self.groups, self.in_channels // self.groups
        return (*(out_in[::-1] if self.transposed else out_in), *self.kernel_size)

    def extra_repr(self) -> str:
        flag = ", block_diagonal=True" if self.block_diagonal else ""
        return f"{super().extra_repr()}, kernel={tuple(self.weight.shape)}{flag}, {self.formulation}"

    def grouped(self, input: Tensor, *args: Any) -> Tensor:
        """The expanded convolution itself."""
        raise NotImplementedError

    def _compute(self, input: Tensor, *args: Any) -> Tensor:
        """By the formulation; ``args`` are passed to ``grouped``."""
        require_kernel(self)
        name = static_formulation(self) if self.formulation == "auto" else self.formulation
        if name == "grouped" or isinstance(input, torch.fx.Proxy) or torch.compiler.is_exporting():
            return self.grouped(input, *args)
        dim = len(self.kernel_size)
        if input.ndim not in (dim + 1, dim + 2) or input.shape[-dim - 1] != self.in_channels:
            return self.grouped(input, *args)  # which says what is wrong
        alone = input.ndim == dim + 1
        output: Tensor = getattr(formulations, name)(self, input.unsqueeze(0) if alone else input, *args)
        if alone:
            return output.squeeze(0)
        return formulations.in_the_order_of(input, output)

    @property
    def shared_tensors(self) -> dict[str, Cut]:
        """What of the parameters is held once for all groups."""
        held = {}
        if parameters_held(self).get("weight") is not None:
            held["weight"] = Cut(self.kernel_shape, self.groups, self.block_diagonal)
        bias = parameters_held(self).get("bias")
        if bias is not None and bias.shape != (self.out_channels,):
            held["bias"] = Cut(tuple(bias.shape), self.groups)
        return held

    def before_loading(self, state_dict: dict[str, Any], prefix: str) -> None:
        """Cut down what a checkpoint repeats."""
        cut_down(state_dict, self.shared_tensors, prefix, whole=not prefix)

    @property
    def run_groups(self) -> int:
        """The ``groups`` that the convolution itself is called with."""
        return 1 if self.block_diagonal else self.groups


class _SharedConvNd(SharedKernelConv):
    def forward(self, input: Tensor) -> Tensor:
        """(N, in_channels, *size) or (in_channels, *size) -> what the torch class returns."""
        return self._compute(input)

    def grouped(self, input: Tensor, *args: Any) -> Tensor:
        """The expanded convolution itself."""
        conv = (F.conv1d, F.conv2d, F.conv3d)[len(self.kernel_size) - 1]
        padding: Any = self.padding
        if self.padding_mode != "zeros":
            # torch's own way of padding in another mode: pad first, then convolve without padding.
            input = F.pad(input, reversed_padding(self), mode=self.padding_mode)
            padding = (0,) * len(self.kernel_size)
        weight, bias = self.expanded_weight(), self.expanded_bias()
        return conv(input, weight, bias, self.stride, padding, self.dilation, self.run_groups)


class _SharedConvTransposeNd(SharedKernelConv, ConvTransposeNd):
    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """(N, in_channels, *size) or (in_channels, *size) -> what the torch class returns."""
        return self._compute(input, output_size)

    def grouped(self, input: Tensor, *args: Any) -> Tensor:
        """The expanded convolution itself; ``args``: the ``output_size``."""
        added = output_padding(self, input, args[0] if args else None)
        conv = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[len(self.kernel_size) - 1]
        return conv(
            input,
            self.expanded_weight(),
            self.expanded_bias(),
            self.stride,
            self.padding,  # type: ignore[arg-type]
            added,
            self.run_groups,
            self.dilation,
        )


class SharedKernelConv1d(_SharedConvNd, nn.Conv1d):
    """``nn.Conv1d`` with one kernel for all groups.

    ``weight``: (out_channels/groups, in_channels/groups, k); ``bias``: (out_channels/groups,) or None.

    Example:
        >>> conv = SharedKernelConv1d(4, 4, 3, groups=4)
        >>> conv.weight.shape, conv(torch.ones(2, 4, 8)).shape
        (torch.Size([1, 1, 3]), torch.Size([2, 4, 6]))
    """


class SharedKernelConv2d(_SharedConvNd, nn.Conv2d):
    """``nn.Conv2d`` with one kernel for all groups.

    ``weight``: (out_channels/groups, in_channels/groups, kh, kw); ``bias``: (out_channels/groups,) or None.

    Example:
        >>> conv = SharedKernelConv2d(3, 3, 5, padding="same", groups=3, bias=False)
        >>> conv.weight.shape, conv(torch.ones(1, 3, 8, 8)).shape
        (torch.Size([1, 1, 5, 5]), torch.Size([1, 3, 8, 8]))
    """


class SharedKernelConv3d(_SharedConvNd, nn.Conv3d):
    """``nn.Conv3d`` with one kernel for all groups.

    ``weight``: (out_channels/groups, in_channels/groups, kd, kh, kw);
    ``bias``: (out_channels/groups,) or None.

    Example:
        >>> SharedKernelConv3d(2, 4, 3, groups=2)(torch.ones(1, 2, 4, 4, 4)).shape
        torch.Size([1, 4, 2, 2, 2])
    """


class SharedKernelConvTranspose1d(_SharedConvTransposeNd, nn.ConvTranspose1d):
    """``nn.ConvTranspose1d`` with one kernel for all groups.

    ``weight``: (in_channels/groups, out_channels/groups, k), torch's layout of one group;
    ``bias``: (out_channels/groups,) or None.

    Example:
        >>> SharedKernelConvTranspose1d(4, 4, 4, stride=2, groups=4)(torch.ones(1, 4, 8)).shape
        torch.Size([1, 4, 18])
    """


class SharedKernelConvTranspose2d(_SharedConvTransposeNd, nn.ConvTranspose2d):
    """``nn.ConvTranspose2d`` with one kernel for all groups.

    ``weight``: (in_channels/groups, out_channels/groups, kh, kw), torch's layout of one group;
    ``bias``: (out_channels/groups,) or None.

    Example:
        >>> up = SharedKernelConvTranspose2d(3, 3, 4, stride=2, padding=1, groups=3, bias=False)
        >>> up(torch.ones(1, 3, 8, 8)).shape
        torch.Size([1, 3, 16, 16])
    """


class SharedKernelConvTranspose3d(_SharedConvTransposeNd, nn.ConvTranspose3d):
    """``nn.ConvTranspose3d`` with one kernel for all groups.

    ``weight``: (in_channels/groups, out_channels/groups, kd, kh, kw), torch's layout of one group;
    ``bias``: (out_channels/groups,) or None.

    Example:
        >>> SharedKernelConvTranspose3d(2, 2, 2, stride=2, groups=2)(torch.ones(1, 2, 3, 3, 3)).shape
        torch.Size([1, 2, 6, 6, 6])
    """


SHARED_CLASSES: dict[type[nn.Module], type[SharedKernelConv]] = {
    nn.Conv1d: SharedKernelConv1d,
    nn.Conv2d: SharedKernelConv2d,
    nn.Conv3d: SharedKernelConv3d,
    nn.ConvTranspose1d: SharedKernelConvTranspose1d,
    nn.ConvTranspose2d: SharedKernelConvTranspose2d,
    nn.ConvTranspose3d: SharedKernelConvTranspose3d,
}
