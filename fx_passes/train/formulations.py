"""How a shared convolution computes its output in PyTorch, forwards and backwards.

    grouped        F.conv(x, kernel.expand(groups, ...), groups): the bits of the repeated convolution
    channels_last  the same on a copy of the input whose channels are neighbours in memory
    polyphase      channels as batch items, neighbouring outputs along the width as channels: one dense
                   convolution whose weight, the kernel at every shift, is built from the one kernel
    separable      a fixed kernel of rank 1 as its row, in phases, and its column
    auto           by the rules of ``static_formulation``

All give the same output and gradients up to rounding, for any finite input, in the memory format that
``grouped`` gives; the gradient of the kernel is the sum over the groups whichever it is. When a model is
exported or traced, every formulation is ``grouped``: what is fastest there is for the lowerings to say. The
source of the phases is ``resample/phases.py``; here they are cut out of shifted copies, without a table of
indices, so that their gradient is a sum.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from fx_passes.graph.torch_internals import ASSERT_ASYNC, parameters_held, reversed_padding

Formulation = Literal["auto", "grouped", "channels_last", "polyphase", "separable"]
FORMULATIONS: tuple[Formulation, ...] = ("auto", "grouped", "channels_last", "polyphase", "separable")

# Outputs along the width that are computed as channels.
_PHASES = 32
# Taps of a 2-D kernel from which the rules choose a formulation, and channels below which they choose
# channels_last whatever the kernel: measured with benchmarks/train.py.
_POLYPHASE_TAPS, _CHANNELS_LAST_TAPS, _FEW_CHANNELS = 225, 25, 16


class OneKernelConv(Protocol):
    """What a formulation uses of a convolution that holds one kernel; the rest is as in ``torch.nn``."""

    weight: Tensor
    bias: Tensor | None
    in_channels: int
    out_channels: int
    groups: int
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    padding_mode: Literal["zeros", "reflect", "replicate", "circular"]
    transposed: bool
    block_diagonal: bool

    @property
    def kernel_shape(self) -> tuple[int, ...]:
        """The shape of the kernel of one group."""
        ...

    def grouped(self, input: Tensor, *args: Any) -> Tensor:
        """The expanded convolution itself."""
        ...


def require_formulation(name: str) -> None:
    """Raises ValueError for what is no formulation."""
    if name not in FORMULATIONS:
        raise ValueError(f"formulation must be one of {', '.join(FORMULATIONS)}, got {name!r}")


def require_kernel(module: OneKernelConv) -> None:
    """Raises ValueError where the weight is something else than the kernel of one group: all repeats, say."""
    weight = parameters_held(module).get("weight")
    if weight is None or torch.jit.is_tracing():  # type: ignore[attr-defined]
        return
    if tuple(weight.shape) == module.kernel_shape:
        return
    raise ValueError(
        f"the weight {list(weight.shape)} is not the kernel of one group, {list(module.kernel_shape)}: set "
        "that, or give repeats to load_state_dict(), which checks them"
    )


def formulation_refusal(name: str, module: OneKernelConv) -> str | None:
    """Why ``module`` cannot be computed so; None where it can."""
    if name not in FORMULATIONS:
        return f"it must be one of {', '.join(FORMULATIONS)}"
    if name in ("auto", "grouped"):
        return None
    dim = len(module.kernel_size)
    if name == "channels_last":
        return None if dim == 2 else f"a {dim}-D convolution has no such order"
    if module.transposed:
        return "the convolution is transposed"
    if module.block_diagonal or module.in_channels != module.groups or module.out_channels != module.groups:
        return "a group has more than one input or output channel"
    if name == "separable":
        return None if dim == 2 else f"a {dim}-D kernel is not separated"
    return None if dim < 3 else "a 3-D convolution has no such form"


def static_formulation(module: OneKernelConv) -> Formulation:
    """What ``auto`` is, from the geometry alone."""
    taps = module.kernel_size[0] * module.kernel_size[-1]
    if len(module.kernel_size) != 2 or module.transposed or max(module.stride) > 1:
        return "grouped"
    if taps >= _POLYPHASE_TAPS and formulation_refusal("polyphase", module) is None:
        return "polyphase"
    depthwise = module.in_channels == module.groups == module.out_channels and not module.block_diagonal
    few = module.groups < _FEW_CHANNELS
    return "channels_last" if depthwise and (few or taps >= _CHANNELS_LAST_TAPS) else "grouped"


def channels_last(module: OneKernelConv, x: Tensor, *args: Any) -> Tensor:
    """The grouped convolution of a channels-last copy of ``x`` (N, C, H, W), in the order of ``x``."""
    if _is_channels_last(x):
        return module.grouped(x, *args)
    if torch.compiler.is_compiling():
        last = x.contiguous(memory_format=torch.channels_last)
    else:  # the same, which vmap knows as well
        last = x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    return module.grouped(last, *args).contiguous()


def in_the_order_of(x: Tensor, y: Tensor) -> Tensor:
    """``y`` channels-last where ``x`` is, as torch's convolutions give it."""
    return y.contiguous(memory_format=torch.channels_last) if _is_channels_last(x) else y


def _is_channels_last(x: Tensor) -> bool:
    return x.ndim == 4 and x.shape[1] > 1 and x.stride(1) == 1 and not x.is_contiguous()


def polyphase(module: OneKernelConv, x: Tensor) -> Tensor:
    """(N, C, L) or (N, C, H, W): 32 outputs along the width at a time."""
    kernel = module.weight[0, 0]
    kernel = kernel if kernel.ndim == 2 else kernel.unsqueeze(0)
    stride, dilation = module.stride[-1], module.dilation[-1]
    x, width, blocks = _blocks(module, x, kernel.shape[1])
    weight = _shifted(kernel, stride, dilation).transpose(0, 1).unsqueeze(1)  # (T, 1, kh, window)
    down = (module.stride[0], module.dilation[0]) if len(module.stride) == 2 else (1, 1)
    y = F.conv2d(x, weight, _bias_of_phases(module), (down[0], _PHASES * stride), 0, (down[1], 1))
    return _interleaved(module, y, width, blocks)


def separable(module: OneKernelConv, x: Tensor) -> Tensor:
    """(N, C, H, W): the row in phases, then the column on each of them.

    Raises:
        RuntimeError: the kernel is not fixed, or its rank is above 1.
    """
    kernel = module.weight[0, 0]
    if module.weight.requires_grad:
        raise RuntimeError(
            "formulation='separable' is for a fixed kernel: call weight.requires_grad_(False), "
            "or choose another formulation"
        )
    # Through the largest element; selected, not indexed, as a graph cannot index by what it computes.
    place = kernel.abs().argmax().reshape(1)
    column = kernel.index_select(1, place % kernel.shape[1])[:, 0]
    pivot = kernel.flatten().index_select(0, place)
    # A kernel of zeros has no pivot; its column is zero already.
    row = kernel.index_select(0, place // kernel.shape[1])[0] / pivot.where(pivot != 0, 1)
    error = (torch.outer(column, row) - kernel).abs().max()
    allowed = 8 * torch.finfo(kernel.dtype).eps * kernel.abs().max()
    ASSERT_ASYNC(error <= allowed, "formulation='separable', and the rank of the kernel is above 1")
    x, width, blocks = _blocks(module, x, kernel.shape[1])
    weight = _shifted(row.unsqueeze(0), module.stride[1], module.dilation[1]).transpose(0, 1).unsqueeze(1)
    y = F.conv2d(x, weight, None, (1, _PHASES * module.stride[1]))
    columns = column.reshape(1, 1, -1, 1).expand(_PHASES, -1, -1, -1)
    stride, dilation = (module.stride[0], 1), (module.dilation[0], 1)
    y = F.conv2d(y, columns, _bias_of_phases(module), stride, 0, dilation, _PHASES)
    return _interleaved(module, y, width, blocks)


def _blocks(module: OneKernelConv, x: Tensor, taps: int) -> tuple[Tensor, int, int]:
    """Planes (N * C, 1, H, W), padded as the module says and to whole blocks; width of the output; blocks."""
    span, stride = module.dilation[-1] * (taps - 1), module.stride[-1]
    left, right, *rest = reversed_padding(module)
    top, bottom = rest or (0, 0)
    x = x.reshape(-1, 1, x.shape[-2] if rest else 1, x.shape[-1])
    if module.padding_mode != "zeros":
        x = F.pad(x, (left, right, top, bottom), mode=module.padding_mode)
        left = right = top = bottom = 0
    width = (x.shape[-1] + left + right - span - 1) // stride + 1
    blocks = (width + _PHASES - 1) // _PHASES
    read = (blocks * _PHASES - 1) * stride + span + 1
    # Always a tensor of its own: inductor of torch 2.13 cannot order the symbolic strides of a view that is
    # kept for the backward pass.
    return F.pad(x, (left, read - left - x.shape[-1], top, bottom)), width, blocks


def _shifted(kernel: Tensor, stride: int, dilation: int) -> Tensor:
    """(rows, T, window): ``kernel`` (rows, taps) at the T shifts 0, stride, 2 * stride, ... in a window.

    A row of ``window + stride`` elements, the kernel and zeros, is repeated T times; read in rows of
    ``window``, each begins ``stride`` elements earlier than the one before.

    Example:
        >>> _shifted(torch.tensor([[1.0, 2.0]]), 1, 1)[0, :3, :4]
        tensor([[1., 2., 0., 0.],
                [0., 1., 2., 0.],
                [0., 0., 1., 2.]])
    """
    rows, taps = kernel.shape
    if dilation > 1:
        kernel = F.pad(kernel.unsqueeze(2), (0, dilation - 1)).flatten(1)[:, : dilation * (taps - 1) + 1]
    window = kernel.shape[1] + (_PHASES - 1) * stride
    kernel = F.pad(kernel, (0, window + stride - kernel.shape[1]))
    repeated = kernel.unsqueeze(1).expand(-1, _PHASES, -1).reshape(rows, -1)
    return repeated[:, : _PHASES * window].reshape(rows, _PHASES, window)


def _bias_of_phases(module: OneKernelConv) -> Tensor | None:
    """The bias of every phase, where one value serves all channels."""
    bias = module.bias
    return bias.expand(_PHASES) if bias is not None and bias.shape == (1,) else None


def _interleaved(module: OneKernelConv, y: Tensor, width: int, blocks: int) -> Tensor:
    """(N * C, T, H, blocks) as (N, C, L) or (N, C, H, W)."""
    height = (y.shape[2],) if len(module.kernel_size) == 2 else ()
    y = y.permute(0, 2, 3, 1).reshape(-1, module.out_channels, *height, blocks * _PHASES)
    y = y[..., :width].contiguous()
    if module.bias is None or module.bias.shape == (1,):
        return y
    return y + module.bias.to(y.dtype).reshape(-1, *[1] * len(module.kernel_size))
