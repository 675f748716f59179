"""A site of three dimensions, computed as two of two dimensions: its planes, and its lines along the depth.

Before:  conv(x (N, C, D, H, W), expand(line * plane), groups=C)
After:   y = conv(x (N, C * D, H, W), expand(plane)), by any lowering
         conv(y (N, C, D, H * W), expand(line along the height)), by a lowering that says ``ALONG_LINES``

``volume_parts.py`` says when this is possible. The intermediate result is rounded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import ModuleType

import torch
from torch import Tensor

from fx_passes.costs import shared_parts
from fx_passes.costs.operator_times import Work
from fx_passes.costs.site_sizes import Sizes
from fx_passes.lowerings.forms.base import Lowered
from fx_passes.lowerings.forms.refusals import refuse
from fx_passes.lowerings.forms.volume_parts import parts_of, sizes_of_parts
from fx_passes.records import EXACTNESS, Exactness, Proposal, Refusal
from fx_passes.resample.axes import Resample

# Parameters of the lowering along the depth, in a proposal for both.
_DEPTH = "depth"


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
    ways = parted(proposal)
    total = shared_parts.bias(site)
    for along, sizes in sizes_of_parts(site).items():
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
        super().__init__(resample, kernel, bias, **dict(proposal.params))
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
