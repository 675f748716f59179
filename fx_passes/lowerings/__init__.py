"""The ways to compute a shared convolution, one file each; adding a way is adding a file.

A file holds ``propose(resample, kernel)``, which returns proposals or the reason why there is none, and
``Module``, a :class:`~fx_passes.lowered.Lowered` that is built from the parameters of a proposal. Its name
is the name of the lowering. The files are discovered, and tuning times whatever they propose; for the static
rules to choose a new one as well, ``ranking.py`` has to know its work. ``expand``, which every shared site
allows, is what remains where none is chosen.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from types import ModuleType

from torch import Tensor

from fx_passes.lowered import Lowered
from fx_passes.records import EXACTNESS, Exactness, Proposal
from fx_passes.resample import Resample

MODULES: dict[str, ModuleType] = {
    info.name: importlib.import_module(f"{__name__}.{info.name}") for info in pkgutil.iter_modules(__path__)
}


def propose(
    resample: Resample, kernel: Tensor, exactness: Exactness = "finite"
) -> tuple[list[Proposal], dict[str, str]]:
    """What each lowering proposes for a site, and why those that do not, do not.

    Args:
        kernel: (rows, columns, *taps), in the order of a correlation.
        exactness: the least exact that is allowed.
    """
    proposals: list[Proposal] = []
    refusals: dict[str, str] = {}
    for name, module in MODULES.items():
        answer: Sequence[Proposal] | str = module.propose(resample, kernel)
        if isinstance(answer, str):
            refusals[name] = answer
            continue
        for proposal in answer:
            if EXACTNESS.index(proposal.exactness) <= EXACTNESS.index(exactness):
                proposals.append(proposal)
            else:
                refusals[name] = f"it is {proposal.exactness}, and only {exactness} is allowed"
    return proposals, refusals


def build(proposal: Proposal, resample: Resample, kernel: Tensor, bias: Tensor | None) -> Lowered:
    """The module that computes a site as proposed."""
    module: Lowered = MODULES[proposal.lowering].Module(resample, kernel, bias, **dict(proposal.params))
    return module.eval()
