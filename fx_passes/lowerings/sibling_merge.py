"""Sites with one kernel on several inputs -> one of them, on the inputs put together.

Before:  conv(x1, expand(kernel)), conv(x2, expand(kernel)), ...
After:   split(lowered(cat(x1, x2, ...)))

The windowed means of SSIM are such sites: none of them needs the result of another, and kernel, geometry and
shapes are the same. One call in place of several saves what every operator costs by itself, and costs two
copies: it pays for small inputs. What is done to the inputs together is one of the other lowerings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from fx_passes.records import Proposal
from fx_passes.resample import Resample


def merged(resample: Resample) -> Resample:
    """All siblings as one site, their batches one after the other."""
    count = resample.siblings
    shapes = [(count * (shape[0] or 0), *shape[1:]) for shape in (resample.in_shape, resample.out_shape)]
    return replace(resample, in_shape=shapes[0], out_shape=shapes[1], siblings=1)


def propose(resample: Resample, kernel: Tensor) -> Sequence[Proposal] | str:
    """Every other lowering, on all siblings at once."""
    from fx_passes.lowerings import MODULES

    if resample.siblings == 1:
        return "no other site has its kernel, geometry and shapes, and is independent of it"
    proposals = []
    for name, module in MODULES.items():
        if module.__name__ == __name__ or isinstance(answer := module.propose(merged(resample), kernel), str):
            continue
        for inner in answer:
            params = tuple(sorted((("lowering", name), *inner.params)))
            proposals.append(Proposal("sibling_merge", params, inner.exactness))
    return proposals or "no lowering computes its siblings together"


class Module(nn.Module):
    """Never built itself: what it makes is the module of the other lowering, for all siblings."""

    def __new__(  # type: ignore[misc]
        cls, resample: Resample, kernel: Tensor, bias: Tensor | None, *, lowering: str, **params: Any
    ) -> nn.Module:
        from fx_passes.lowerings import MODULES

        module: nn.Module = MODULES[lowering].Module(merged(resample), kernel, bias, **params)
        return module
