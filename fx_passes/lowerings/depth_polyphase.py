"""A volume: T neighbouring outputs along the depth, of each of R, as R * T channels of a 2-D convolution.

Before:  conv(x (N, C, D, H, W), expand(kernel (R, 1, kd, kh, kw)), groups=C)
After:   conv(x (N * C * blocks, window, H, W), weight (R * T, window, kh, kw), stride (sh, sw))

The depths that T outputs read are the channels of the convolution. If there is more than one block of T
outputs, their windows overlap, and a Gather writes them one behind the other. Runtimes compute a convolution
of three dimensions tap by tap, or from columns that they gather for each group; one of two dimensions they
compute from the input. The kernel may be of any rank. (``resample/phases.py``)
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fx_passes.costs import shared_parts as parts
from fx_passes.costs.operator_times import Work, convolution, moved, nodes
from fx_passes.costs.site_sizes import Sizes
from fx_passes.lowerings.forms.refusals import refuse, transposed_refusal
from fx_passes.lowerings.forms.windowed import Windowed
from fx_passes.lowerings.forms.windows import phase_windows, single_windows
from fx_passes.records import Proposal, Refusal
from fx_passes.resample.axes import Resample
from fx_passes.resample.phases import phase_weight, phases_of

# It computes sites of three dimensions, and no others.
VOLUMES = True
_PHASES = (4, 8, 16)


def propose(resample: Resample, kernel: Tensor) -> list[Proposal] | Refusal:
    """4, 8 or 16 phases, but no more than the depth needs."""
    if resample.dim != 3:
        return refuse("dimensions", f"a {resample.dim}-D convolution has no depth")
    if resample.columns > 1:
        return refuse("columns", f"a group has {resample.columns} input channels, not one")
    if resample.up > 1:
        return transposed_refusal()
    depth, length = resample.axes[0], resample.in_shape[-3]
    if depth.taps == 1:
        return refuse("depth", "its kernel has one tap along the depth")
    # One block may have more outputs than there are, but not twice as many.
    most = _PHASES[-1] if length is None else max(2 * depth.size(length) - 1, _PHASES[0])
    return [Proposal("depth_polyphase", (("phases", n),), "finite") for n in _PHASES if n <= most]


def work(site: Sizes, params: parts.Params, block: int) -> Work:
    """What onnxruntime does for it; args as in ``costs/shared_parts.py``."""
    count, rows = params["phases"], site.rows
    down, blocks = parts.phases(site.depth, count), -(-site.depths[1] // count)
    pairs = zip((site.height, site.width), site.outputs, strict=True)
    height, width = ((size - 1) * axis.down + axis.span + 1 for axis, size in pairs)
    pad = moved(site.planes * ((blocks - 1) * down.step + down.window) * height * width)
    flat = replace(site.as_planes(blocks), inputs=(height, width), padded=False)
    total = parts.bias(site) + nodes(2) + pad + (pad if site.padded else Counter())
    total += convolution(flat, flat.planes, 1, (down.window, rows * count), block, flat=True, chain=False)
    if blocks > 1:
        total += moved(flat.planes * down.window * height * width)
    if blocks > 1 and rows > 1:
        total += moved(flat.planes * rows * count * math.prod(site.outputs))
    return total + (Counter() if site.known and site.depths[1] % count == 0 else moved(site.written))


class Module(Windowed):
    """``phases`` outputs along the depth at a time, of each of the outputs of a channel."""

    weight: Tensor
    places: Tensor
    finishes = True

    def __init__(self, resample: Resample, kernel: Tensor, bias: Tensor | None, *, phases: int) -> None:
        super().__init__(resample, kernel, bias, phases=phases)
        depth, height, width = self.axes
        down = phases_of(depth, phases)
        assert down is not None  # as nothing is stuffed in between
        self.windows = phase_windows(down), single_windows(height), single_windows(width)
        weight = phase_weight(kernel.detach()[:, 0].double() * resample.scale, down, 1)
        self.register_buffer("weight", weight.flatten(0, 1).to(kernel.dtype).contiguous(), persistent=False)
        self.single = False  # all outputs are known to be in one block
        if resample.static:
            blocks = -(-(resample.out_shape[-3] or 0) // phases)
            self.single = blocks == 1
            self.register_buffer("places", self._places(blocks, kernel.device), persistent=False)

    def compute(self, x: Tensor) -> Tensor:
        (depth, height, width), axes, rows = self.windows, self.axes, self.resample.rows
        items, blocks, given = math.prod(x.shape[:-3]), self.blocks(x)[0], self.windowed(x)
        if not self.single:
            static = self.resample.static
            given = given.index_select(2, self.places if static else self._places(blocks, x.device))
        given = given.reshape(items * blocks, depth.length, *given.shape[-2:])
        bias = None
        if self.bias is not None and self.bias_shared:
            bias = self.bias.repeat_interleave(depth.count)
        dilation = axes[1].dilation, axes[2].dilation
        y = F.conv2d(given, self.weight, bias, (height.step, width.step), 0, dilation)
        if rows > 1 and not self.single:
            y = y.reshape(items, blocks, rows, depth.count, *y.shape[-2:]).transpose(1, 2)
        return self.finished(y.reshape(items * rows, blocks * depth.count, *y.shape[-2:]), x)

    def _places(self, blocks: Any, device: torch.device) -> Tensor:
        """The depths that the windows of all blocks read, one window behind the other."""
        first = torch.arange(blocks, device=device) * self.windows[0].step
        return (first.unsqueeze(1) + torch.arange(self.windows[0].length, device=device)).flatten()
