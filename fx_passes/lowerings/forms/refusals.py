"""Why a lowering does not compute a site. Each cause has one text and one code."""

from __future__ import annotations

from torch import Tensor

from fx_passes.kernels.factor import factorise
from fx_passes.records import Refusal
from fx_passes.resample.axes import Resample, transposed_padding


def refuse(code: str, reason: str) -> Refusal:
    """The refusal of one lowering. It does not know the id of the site.

    Example:
        >>> refuse("open-size", "a size is open").code
        'open-size'
    """
    return Refusal("", "lowering", code, reason)


def grouped_refusal(resample: Resample) -> Refusal | None:
    """Why a resampling is no single convolution. None if it is one."""
    if resample.up == 1:
        return None
    axes = resample.axes
    if any(axis.down > 1 for axis in axes):
        return refuse("fraction", "it changes the rate by a fraction")
    if resample.mode != "zeros" or any(transposed_padding(axis)[0] < 0 for axis in axes):
        return refuse("padding", "its padding is none that a transposed convolution has")
    if any(not 0 <= transposed_padding(axis)[1] < axis.up for axis in axes):
        return refuse("cut", "its output is cut as a transposed convolution cannot")
    return None


def polyphase_refusal(resample: Resample) -> Refusal | None:
    """Why outputs cannot be computed in phases. None if they can."""
    if refusal := channels_refusal(resample):
        return refusal
    height = resample.height_width()[0]
    if height.up > 1 and height.down > 1:
        return refuse("fraction", "it changes the rate of the height by a fraction")
    return None


def separable_refusal(
    resample: Resample, kernel: Tensor, rank: int = 1, *, lines: bool = False
) -> Refusal | None:
    """Why a kernel is no sum of at most ``rank`` products. None if it is.

    Args:
        resample: what the site computes.
        kernel: (rows, columns, *taps), in the order of a correlation.
        rank: the largest number of products.
        lines: a row or a column, which is a product with 1, is meant as well.
    """
    if resample.dim != 2:
        return refuse("dimensions", f"a {resample.dim}-D kernel is not separated")
    if refusal := channels_refusal(resample):
        return refusal
    if min(kernel.shape[2:]) == 1 and not lines:
        return refuse("line", "the kernel is a row or a column already")
    if factorise(kernel[0, 0], rank) is None:
        return refuse("rank", f"the rank of the kernel is above {rank}")
    return None


def bank_refusal(resample: Resample) -> Refusal | None:
    """Why a group is no bank: several outputs of one channel. None if it is one."""
    if resample.columns > 1 or resample.rows == 1:
        said = f"a group has {resample.columns} input and {resample.rows} output channels"
        return refuse("bank", f"{said}, not one and several")
    return transposed_refusal() if resample.up > 1 else None


def channels_refusal(resample: Resample) -> Refusal | None:
    """Why a group does not filter a single channel. None if it does."""
    if resample.rows * resample.columns == 1:
        return None
    return refuse(
        "channels", f"a group has {resample.columns} input and {resample.rows} output channels, not one"
    )


def transposed_refusal() -> Refusal:
    """The refusal of a transposed site, by a lowering for ordinary ones."""
    return refuse("transposed", "it is transposed")


def phases_refusal(counts: str, stride: int) -> Refusal:
    """The refusal of a site where a block of phases would begin between two samples of the input."""
    return refuse("phases", f"no block of {counts} outputs begins on an input sample at stride {stride}")
