"""Each axis of a small input as a product with a matrix. The matrix holds filter, padding and both rates.

Before:  Pad, conv(x (N, C, L), expand(kernel), groups=C)      after:  x @ band (L, L')
         Pad, conv(x (N, C, H, W), expand(column * row))       after:  band (H', H) @ (x @ band (W, W'))

Padding continues a line by samples of that line. So it only adds to entries of the matrix. A transposed
convolution, zeros between samples and a Slice choose rows and columns of it. One kernel serves all channels,
so their lines are the rows of one matrix. Most entries are zeros. It pays for lines so short that a
convolution spends more time around its sums than on them.
"""

from __future__ import annotations

from collections import Counter

import torch
import torch.nn.functional as F
from torch import Tensor

from fx_passes.costs import shared_parts as parts
from fx_passes.costs.operator_times import Work
from fx_passes.costs.site_sizes import Sizes
from fx_passes.lowerings.forms.planar import Planar
from fx_passes.lowerings.forms.refusals import channels_refusal, refuse, separable_refusal
from fx_passes.records import Proposal, Refusal
from fx_passes.resample.axes import Axis, Resample

# It computes lines along the depth of a volume (``forms/volume.py``).
ALONG_LINES = True
# Samples of a line up to which it is worth timing.
_LONGEST = 96


def propose(resample: Resample, kernel: Tensor) -> list[Proposal] | Refusal:
    """One way, if all sizes are known and small."""
    if refusal := channels_refusal(resample):
        return refusal
    if resample.dim == 2 and (refusal := separable_refusal(resample, kernel, lines=True)):
        return refusal
    if all(axis.idle for axis in resample.axes):
        return refuse("tap", "the kernel is a single tap, and nothing is filtered")
    if not resample.static:
        return refuse("open-size", "a size is open")
    sizes = zip(resample.axes, resample.in_shape[-resample.dim :], strict=True)
    longest = max(size or 0 for axis, size in sizes if not axis.idle)
    if longest > _LONGEST:
        return refuse(
            "long", f"lines of {longest} samples, more than {_LONGEST}, are mostly zeros in its matrix"
        )
    return [Proposal("banded", (), "finite")]


def band(axis: Axis, kernel: Tensor, length: int, mode: str) -> Tensor:
    """The matrix (outputs, length) of what an axis does, float64.

    Args:
        axis: the axis.
        kernel: (taps,), float64.
        length: samples of the input.
        mode: how the padding ``axis.pad`` continues the input.

    Example:
        >>> band(Axis(2, shift=1, extent=-1, pad=(1, 0)), torch.tensor([1.0, 2.0]).double(), 3, "replicate")
        tensor([[3., 0., 0.],
                [1., 2., 0.],
                [0., 1., 2.]], dtype=torch.float64)
    """
    sample = torch.arange(length, dtype=torch.float64)[None]
    if axis.pad != (0, 0):
        sample = F.pad(sample, axis.pad, mode=mode)
    outputs = torch.arange(axis.size(length))[:, None]
    place = outputs * axis.down + torch.arange(axis.taps) * axis.dilation - axis.shift
    padded = place.div(axis.up, rounding_mode="floor") + axis.pad[0]
    read = (place % axis.up == 0) & (padded >= 0) & (padded < sample.shape[1])
    column = sample[0].long()[padded.clamp(0, sample.shape[1] - 1)]
    matrix = torch.zeros(len(outputs), length, dtype=torch.float64)
    return matrix.scatter_add(1, column, torch.where(read, kernel, 0.0))


def work(site: Sizes, params: parts.Params, block: int) -> Work:
    """One product for all lines, and one for each plane. Args as in ``costs/shared_parts.py``."""
    (height, width), (out_height, out_width) = site.inputs, site.outputs
    work: Work = Counter()
    if not site.width.idle:
        work += Counter(multiply_matrix=site.planes * height * width * out_width, node=1)
    if not site.height.idle:
        products = site.planes * height * out_height * out_width
        work += Counter(multiply_matrix=products, call_matrix=site.planes, node=1)
    return work + parts.bias(site)


class Module(Planar):
    """A matrix for each axis along which something is done."""

    row: Tensor
    column: Tensor

    def prepare(self, kernel: Tensor) -> None:
        sizes, mode = self.resample.in_shape, self.resample.mode
        assert sizes[-1] is not None
        if self.resample.dim == 1:
            row = kernel[0, 0, 0]
        else:
            assert sizes[-2] is not None
            column, row = self.factors(1)[0]
            if self.width.idle:
                column = column * row
            if not self.height.idle:
                self.keep("column", band(self.height, column, sizes[-2], mode).to(self.dtype))
        if not self.width.idle:
            self.keep("row", band(self.width, row, sizes[-1], mode).t().to(self.dtype).contiguous())

    def compute(self, x: Tensor) -> Tensor:
        y = x @ self.row if hasattr(self, "row") else x
        if hasattr(self, "column"):
            y = self.column @ y
        return y + self.bias if self.bias is not None and self.bias_shared else y
