"""A transposed convolution of rank 1 -> its row in phases, then its column in blocks that do not overlap.

Before:  conv_transpose(x (N, C, H, W), expand(column * row), stride=(s, t), groups=C)
After:   y = row of x, in phases along the width as in ``transposed_polyphase``: (N * C, 1, H, t * W)
         conv_transpose(n rows of y as channels (N, C * n, H, t * W), weight (C * n, 1, s, 1), stride=(s, 1),
         groups=C)

Runtimes compute a transposed convolution as products, and add them where they overlap. The s outputs of a
block read n = ceil(taps / s) rows of the input. With those rows as n channels, kernel and stride are both s:
every output is written once, and the addition is part of the product. In PyTorch itself the blocks are one
matrix product; onnxruntime would have to copy the result into its place. (``resample/phases.py``,
``kernels/factor.py``)
"""

from __future__ import annotations

from collections import Counter

import torch
import torch.nn.functional as F
from torch import Tensor

from fx_passes.costs import shared_parts as parts
from fx_passes.costs.operator_times import Work, moved, nodes, one_to_many
from fx_passes.costs.site_sizes import Sizes
from fx_passes.lowerings.forms.polyphase_conv import PolyphaseConv
from fx_passes.lowerings.forms.refusals import phases_refusal, polyphase_refusal, refuse, separable_refusal
from fx_passes.records import Proposal, Refusal
from fx_passes.resample.axes import Resample
from fx_passes.resample.phases import phase_weight, phases_of


def propose(resample: Resample, kernel: Tensor) -> list[Proposal] | Refusal:
    """Row in 8 or 16 phases, then column. Fewer phases more often end where the row does, and nothing is
    cut."""
    if refusal := polyphase_refusal(resample) or separable_refusal(resample, kernel):
        return refusal
    height, width = resample.height_width()
    if height.up == 1:
        return refuse("not-transposed", "it is not transposed along the height")
    counts = [count for count in (8, 16) if phases_of(width, count) is not None]
    if not counts:
        return phases_refusal("8 or 16", width.up)
    return [Proposal("transposed_separable", (("phases", count),), "finite") for count in counts]


def work(site: Sizes, params: parts.Params, block: int) -> Work:
    """What onnxruntime does for it; args as in ``costs/shared_parts.py``."""
    count, across = params["phases"], parts.phases(site.width, params["phases"])
    down = parts.phases(site.height, site.height.up)
    blocks = -(-site.outputs[0] // down.count)
    height = blocks * down.step + down.window - 1
    rows = one_to_many(
        site.planes, (1, count), (height, parts.blocks(site, count)), (1, across.window), block
    )
    seen = site.planes * down.window * blocks * site.outputs[1]
    products = Counter(multiply_packed=seen * down.count, scatter=site.written, call=site.planes)
    stack = moved(site.planes * height * site.outputs[1]) + moved(seen, "interleave")
    return parts.window(site, across) + rows + stack + products + nodes(6) + parts.tail(site, count)


class Module(PolyphaseConv):
    """``phases`` outputs of the width at a time, as many of the height as it is up-sampled by."""

    row: Tensor
    column: Tensor

    def prepare(self, kernel: Tensor) -> None:
        assert self.down is not None
        column, row = self.factors(1)[0]
        self.keep("row", phase_weight(row, self.across, 0)[:, None, None].to(self.dtype), self.channels_last)
        self.keep("column", phase_weight(column, self.down, 0).to(self.dtype))

    def compute(self, x: Tensor) -> Tensor:
        assert self.down is not None
        groups = self.resample.groups
        y = F.conv2d(self.windowed(x), self.row, None, (1, self.windows[1].step)).permute(0, 2, 3, 1)
        y = y.flatten(2, 3)
        if self.resample.static:  # otherwise all is cut at the end, in one copy
            y = self.cut(y, y.shape[1], self.sizes(x)[1]).flatten(0, 1)
        (up, seen), count = self.column.shape, y.shape[1] - self.down.window + 1
        rows = [y.narrow(1, offset, count) for offset in range(seen)]
        bias = self.full_bias(groups)
        if torch.compiler.is_exporting():
            y = torch.stack(rows, 1).reshape(-1, groups * seen, count, y.shape[2])
            weight = self.column.t().reshape(seen, 1, up, 1).repeat(groups, 1, 1, 1)
            y = F.conv_transpose2d(y, weight, bias, (up, 1), 0, 0, groups)
            return self.finished(y.flatten(0, 1), x)
        y = torch.matmul(self.column, torch.stack(rows, 2)).flatten(1, 2)
        y = self.finished(y, x)
        return y if bias is None else y + bias[0]
