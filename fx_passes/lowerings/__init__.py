"""The ways to compute a shared convolution: one file for each. ``docs/add-a-lowering.md`` shows how to add
one.

A file holds ``propose(resample, kernel)`` and ``Module``. ``propose`` returns proposals or a refusal.
``Module`` is a ``Lowered`` (``forms/base.py``); the parameters of a proposal build it. The name of the file
is the name of the lowering. All files are found by their names. A lowering knows one and two dimensions, or
three and says ``VOLUMES = True``. For all others, a site of three is computed as two sites of two
(``forms/volume.py``). Tuning times every proposal. The static rules can choose a lowering if its file also
has ``work(site, params, block)``, which counts the work of onnxruntime. Where none is chosen, the expanded
convolution stays (``expand``).
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from dataclasses import replace
from types import ModuleType

from torch import Tensor

from fx_passes.lowerings.forms import volume
from fx_passes.lowerings.forms.base import Lowered
from fx_passes.lowerings.forms.refusals import refuse
from fx_passes.records import EXACTNESS, Exactness, Proposal, Refusal
from fx_passes.resample.axes import Resample

MODULES: dict[str, ModuleType] = {
    info.name: importlib.import_module(f"{__name__}.{info.name}")
    for info in pkgutil.iter_modules(__path__)
    if not info.ispkg
}


def propose_one(
    name: str, resample: Resample, kernel: Tensor, siblings: int | None = None
) -> Sequence[Proposal] | Refusal:
    """The proposals of the lowering ``name`` for a site, or its refusal.

    Args:
        siblings: how many sites one call computes together; None: the site by itself.
    """
    if siblings is None:
        return _scaled(_answer(name, resample, kernel), resample)
    if siblings == 1:
        return refuse(
            "no-siblings", "no other site has its kernel, geometry and shapes, and is independent of it"
        )
    answer = _scaled(_answer(name, resample.times(siblings), kernel), resample)
    return answer if isinstance(answer, Refusal) else [replace(proposal, merged=True) for proposal in answer]


def by_parts(name: str, dim: int) -> bool:
    """Whether the lowering ``name`` computes a site of ``dim`` dimensions as two sites of two."""
    return dim == 3 and not getattr(MODULES.get(name), "VOLUMES", False)


def _answer(name: str, resample: Resample, kernel: Tensor) -> Sequence[Proposal] | Refusal:
    if by_parts(name, resample.dim):
        return volume.propose(name, MODULES, resample, kernel)
    answer: Sequence[Proposal] | Refusal = MODULES[name].propose(resample, kernel)
    return answer


def _scaled(answer: Sequence[Proposal] | Refusal, resample: Resample) -> Sequence[Proposal] | Refusal:
    """The proposals for a site whose groups have factors, or whose kernel is a product: it rounds
    differently."""
    if isinstance(answer, Refusal) or not (resample.factors or resample.composed):
        return answer
    return [replace(p, exactness="reordered") if p.exactness == "bitwise" else p for p in answer]


def propose(
    resample: Resample, kernel: Tensor, exactness: Exactness = "finite", siblings: int = 1
) -> tuple[list[Proposal], dict[str, Refusal]]:
    """The proposals of all lowerings for a site, and the refusals of the others by name.

    Args:
        resample: what the site computes.
        kernel: (rows, columns, *taps), in the order of a correlation.
        exactness: the least exact that is allowed.
        siblings: how many sites one call may compute together; each lowering is then also proposed for all of
            them.
    """
    proposals: list[Proposal] = []
    refusals: dict[str, Refusal] = {}
    for count in [None, siblings] if siblings > 1 else [None]:
        for name in MODULES:
            answer = propose_one(name, resample, kernel, count)
            if isinstance(answer, Refusal):
                refusals.setdefault(name, answer)
                continue
            for proposal in answer:
                if EXACTNESS.index(proposal.exactness) <= EXACTNESS.index(exactness):
                    proposals.append(proposal)
                else:
                    said = f"it is {proposal.exactness}, and only {exactness} is allowed"
                    refusals[name] = refuse("exactness", said)
    return proposals, refusals


def build(
    proposal: Proposal, resample: Resample, kernel: Tensor, bias: Tensor | None, siblings: int = 1
) -> Lowered:
    """The module that computes a site as proposed. A merged proposal computes ``siblings`` sites."""
    of = resample.times(siblings) if proposal.merged else resample
    if by_parts(proposal.lowering, of.dim):
        return volume.Volume(of, kernel, bias, proposal, MODULES).eval()
    module: Lowered = MODULES[proposal.lowering].Module(of, kernel, bias, **dict(proposal.params))
    return module.eval()
