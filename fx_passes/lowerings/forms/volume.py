"""A site of three dimensions as two of two dimensions: its planes, and its lines along the depth.

Before:  conv(x (N, C, D, H, W), expand(line * plane), groups=C)
After:   y = conv(x (N, C * D, H, W), expand(plane)), by any lowering
         conv(y (N, C, D, H * W), expand(line along the height)), by a lowering that says ``ALONG_LINES``

The kernel must be the product of a line along the depth and a plane: ``K[d, h, w] = line[d] * plane[h, w]``.
A filter along the depth does the same to each place of a plane, and one in the plane the same at each depth.
So either can come first, and padding of one does not see the other (``resample/compose.py`` has the algebra).
The one that leaves fewer samples comes first. A convolution that filters only planes, or only lines, is one of
two dimensions already. The intermediate result is rounded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Literal

import torch
from torch import Tensor

from fx_passes.costs import shared_parts
from fx_passes.costs.operator_times import Work
from fx_passes.costs.site_sizes import Sizes
from fx_passes.kernels.factor import factorise
from fx_passes.lowerings.forms.base import Lowered
from fx_passes.lowerings.forms.refusals import channels_refusal, refuse
from fx_passes.records import EXACTNESS, Exactness, Proposal, Refusal
from fx_passes.resample.axes import Axis, Resample

# Parameters of the lowering along the depth, in a proposal for both.
_DEPTH = "depth"


@dataclass(frozen=True)
class Part:
    """A site of two dimensions that computes a part of a volume.

    Args:
        along: ``"planes"`` or ``"lines"``.
        kernel: (1, 1, kh, kw).
    """

    along: Literal["planes", "lines"]
    resample: Resample
    kernel: Tensor


@dataclass(frozen=True)
class Parts:
    """The parts of a volume, in the order in which they are computed, and how exact it is to compute them."""

    inside: tuple[Part, ...]
    exactness: Exactness


def parts_of(resample: Resample, kernel: Tensor) -> Parts | Refusal:
    """The parts of a site of three dimensions.

    Args:
        resample: what the site computes.
        kernel: (1, 1, kd, kh, kw).
    """
    if refusal := channels_refusal(resample):
        return refusal
    depth, (height, width) = resample.axes[0], resample.axes[1:]
    kd, kh, kw = kernel.shape[2:]
    if depth.idle:
        return Parts((_planes(resample, kernel[:, :, 0], resample.in_shape[-3]),), "bitwise")
    if height.idle and width.idle:
        return Parts((_lines(resample, kernel[..., 0, 0], resample.in_shape[-2:]),), "bitwise")
    pairs = factorise(kernel.reshape(kd, kh * kw), 1)
    if pairs is None:
        return refuse("rank", "its kernel is no product of a line along the depth and a plane")
    line, plane = (factor.to(kernel.dtype) for factor in pairs[0])
    # Where an element of the kernel underflowed to 0 and its factors did not, NaN = 0 * Inf would be Inf.
    zeros_agree = torch.equal(torch.outer(line != 0, plane != 0), kernel.reshape(kd, -1) != 0)
    exactness: Exactness = "reordered" if zeros_agree else "finite"
    first, scaled = replace(resample, scale=1.0), resample
    line, plane = line[None, None], plane.reshape(1, 1, kh, kw)
    if _left(depth) < _left(height, width):
        before = _lines(first, line, resample.in_shape[-2:])
        return Parts((before, _planes(scaled, plane, _size(depth, resample.in_shape[-3]))), exactness)
    sizes = [_size(axis, n) for axis, n in zip((height, width), resample.in_shape[-2:], strict=True)]
    return Parts((_planes(first, plane, resample.in_shape[-3]), _lines(scaled, line, sizes)), exactness)


def propose(
    name: str, lowerings: Mapping[str, ModuleType], resample: Resample, kernel: Tensor
) -> Sequence[Proposal] | Refusal:
    """The proposals of the lowering ``name`` for the planes of a volume, each with every way for its lines.
    If there are only planes, or only lines: the proposals for them."""
    parts = parts_of(resample, kernel)
    if isinstance(parts, Refusal):
        return parts
    if len(parts.inside) == 1:
        (part,) = parts.inside
        answer: Sequence[Proposal] | Refusal = lowerings[name].propose(part.resample, part.kernel)
        return answer
    planes, lines = sorted(parts.inside, key=lambda part: part.along == "lines")
    across = lowerings[name].propose(planes.resample, planes.kernel)
    if isinstance(across, Refusal):
        return across
    ways = [lowering for lowering in lowerings.values() if getattr(lowering, "ALONG_LINES", False)]
    answers = [way.propose(lines.resample, lines.kernel) for way in ways]
    down = [one for answer in answers if not isinstance(answer, Refusal) for one in answer]
    if not down:
        return refuse("depth", "no lowering computes the lines along its depth")
    return [_joined(one, line, parts.exactness) for one in across for line in down]


def _joined(planes: Proposal, lines: Proposal, exactness: Exactness) -> Proposal:
    """A proposal for both parts. The parameters of the second begin with ``depth``."""
    own = [(f"{_DEPTH}_{key}", value) for key, value in lines.params]
    least = max(planes.exactness, lines.exactness, exactness, key=EXACTNESS.index)
    return Proposal(planes.lowering, (*planes.params, (_DEPTH, lines.lowering), *own), least)


def parted(proposal: Proposal) -> dict[str, Proposal]:
    """The proposals for planes and for lines, by the name of the part. If the volume is one part only, the
    same for either."""
    params = dict(proposal.params)
    if (way := params.pop(_DEPTH, None)) is None:
        return {"planes": proposal, "lines": proposal}
    own = {key: value for key, value in params.items() if key.startswith(f"{_DEPTH}_")}
    lines = tuple((key.removeprefix(f"{_DEPTH}_"), value) for key, value in own.items())
    planes = tuple((key, value) for key, value in params.items() if key not in own)
    return {
        "planes": replace(proposal, params=planes),
        "lines": Proposal(way, lines, proposal.exactness),
    }


def work(site: Sizes, proposal: Proposal, lowerings: Mapping[str, ModuleType], block: int) -> Work | None:
    """What onnxruntime does for the parts of a volume. None if it is not known for one of them.

    Args:
        site: the sizes of the volume.
        proposal, lowerings: as of ``Volume``.
        block: channels in a block.
    """
    ways, (before, after) = parted(proposal), site.depths
    if site.depth.idle:
        parts = {"planes": site.as_planes(before)}
    elif site.height.idle and site.width.idle:
        parts = {"lines": site.as_lines(site.inputs)}
    elif _left(site.depth) < _left(site.height, site.width):
        parts = {"planes": site.as_planes(after), "lines": site.as_lines(site.inputs)}
    else:
        parts = {"planes": site.as_planes(before), "lines": site.as_lines(site.outputs)}
    total = shared_parts.bias(site)
    for along, sizes in parts.items():
        count = getattr(lowerings.get(ways[along].lowering), "work", None)
        if count is None:
            return None
        total += count(sizes, dict(ways[along].params), block)
    return total


class Volume(Lowered):
    """A site of three dimensions by its parts.

    Args:
        resample, bias: as of ``Lowered``.
        kernel: (1, 1, kd, kh, kw).
        proposal: how to compute the parts.
        lowerings: all of them, by name.
    """

    def __init__(
        self,
        resample: Resample,
        kernel: Tensor,
        bias: Tensor | None,
        proposal: Proposal,
        lowerings: Mapping[str, ModuleType],
    ) -> None:
        super().__init__(resample, bias, kernel.dtype, **dict(proposal.params))
        parts = parts_of(resample, kernel)
        assert not isinstance(parts, Refusal)  # or it would not be proposed
        ways, shared = parted(proposal), bias if self.bias_shared else None
        modules: list[Lowered] = []
        for place, part in enumerate(parts.inside, start=1):
            way, own = ways[part.along], shared if place == len(parts.inside) else None
            computed = lowerings[way.lowering].Module
            modules.append(computed(part.resample, part.kernel, own, **dict(way.params)))
        self.proposal, self.parts = proposal, parts.inside
        self.inside = torch.nn.ModuleList(modules)

    def compute(self, x: Tensor) -> Tensor:
        channels, axes = self.resample.groups, self.resample.axes
        items, sizes = math.prod(x.shape[:-3]) // channels, list(x.shape[-3:])
        for part, module in zip(self.parts, self.inside, strict=True):
            depth, height, width = sizes
            if part.along == "lines":
                x = module(x.reshape(items, channels, depth, height * width))
                sizes[0] = axes[0].size(depth)
            else:
                groups = part.resample.groups
                x = module(x.reshape(items * channels * depth // groups, groups, height, width))
                sizes[1:] = axes[1].size(height), axes[2].size(width)
        return x


def _planes(resample: Resample, kernel: Tensor, depth: int | None) -> Part:
    """The planes of a volume that has ``depth`` of them for each channel."""
    groups = 1 if depth is None else max(depth, 1) * resample.groups
    items = None if depth is None else _items(resample)
    return Part("planes", _flat(resample, resample.axes[1:], groups, items, resample.in_shape[-2:]), kernel)


def _lines(resample: Resample, kernel: Tensor, plane: Sequence[int | None]) -> Part:
    """The lines along the depth of a volume with planes of the size ``plane``."""
    places = None if None in plane else math.prod(size or 0 for size in plane)
    sizes = resample.in_shape[-3], places
    flat = _flat(resample, (resample.axes[0], Axis(1)), resample.groups, _items(resample), sizes)
    return Part("lines", flat, kernel[..., None])


def _flat(
    resample: Resample,
    axes: tuple[Axis, ...],
    groups: int,
    items: int | None,
    sizes: Sequence[int | None],
) -> Resample:
    outs = [_size(axis, size) for axis, size in zip(axes, sizes, strict=True)]
    return replace(
        resample,
        axes=axes,
        groups=groups,
        mode=resample.mode if any(axis.pad != (0, 0) for axis in axes) else "zeros",
        in_shape=(items, groups, *sizes),
        out_shape=(items, groups, *outs),
        factors=(),
        leading=(),
        of_volume=True,
    )


def _items(resample: Resample) -> int | None:
    """Batch items of a volume, None if they are open."""
    known = resample.in_shape[:-3]
    return None if None in known else math.prod(size or 0 for size in known) // resample.groups


def _size(axis: Axis, size: int | None) -> int | None:
    return None if size is None else axis.size(size)


def _left(*axes: Axis) -> float:
    """How many samples of an input of one sample an axis leaves."""
    return math.prod(axis.up / axis.down for axis in axes)
