"""The pass that keeps one kernel for every convolution whose groups repeat it, and expands it at run time.

Before:  conv(x, weight (groups * rows, ...))      every group a copy, trained, stored and exported separately
After:   conv(x, expand(kernel (rows, ...)))       ``Tensor.expand``: every group is the one kernel

The expanded weight is the same bit for bit, so the output is, too. The gradient of the kernel is the sum over
the groups of the gradients of the repeats, by the chain rule of ``expand``.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from typing import Any

from torch import nn
from torch.export import ExportedProgram
from torch.fx import GraphModule
from torch.fx.passes.infra.pass_base import PassBase, PassResult

from fx_passes.capture.frozen_by_tracing import fixed_by_tracing
from fx_passes.capture.routes import capture
from fx_passes.find.find_kernels import judge_graph
from fx_passes.find.verdict import Verdict, on_copy, refuse_changing
from fx_passes.graph.clone import clone_module
from fx_passes.kernels.repeats import EXACT, Allowed, Force
from fx_passes.records import Finding
from fx_passes.share.rewrite_sites import is_pending, rewrite_sites
from fx_passes.train.checkpoint import load_repeated
from fx_passes.train.formulations import Formulation, require_formulation

log = logging.getLogger(__name__)


class ShareKernels(PassBase):
    """A ``torch.fx`` pass that shares the kernel of every convolution whose groups repeat one.

    Args:
        tolerance: the largest absolute distance of a repeat from the mean of the repeats. The mean is kept.
            0.0 shares only repeats that are bitwise equal, and then the output is bitwise equal, too.
        force: keep the ``"mean"`` of the repeats, or the ``"first"``, however far apart they are. The change
            is logged for each site at level WARNING, and it is in the finding of the site: the largest change
            of a weight, and how far the output may move for inputs of magnitude 1.
        sites: ids of the only sites where ``tolerance`` and ``force`` hold, as :func:`find_shared_kernels`
            gives them. None: they hold for every grouped convolution, also for those whose groups are meant
            to differ.
        formulation: how shared modules compute (``train/formulations.py`` lists the ways). ``"grouped"`` has
            the bits of the original. ``"auto"`` is fast in training and rounds differently.
        fold_constants: put the value of a kernel that is computed from constants in a buffer. A buffer that
            is not saved (``persistent=False``) counts as a constant. False: the graph is for an exporter. The
            computation stays in the graph, for the exporter to fold with its own arithmetic, and trainable
            tensors are constants.

    The result is a new graph module. The given one is not changed. Tensors that are not cut are the same
    objects in both.

    Example:
        >>> import torch
        >>> conv = nn.Conv2d(3, 3, 3, groups=3)
        >>> _ = conv.weight.data.copy_(torch.rand(1, 1, 3, 3))
        >>> result = ShareKernels()(torch.fx.symbolic_trace(conv))
        >>> result.modified, result.graph_module.weight.shape
        (True, torch.Size([1, 1, 3, 3]))
    """

    def __init__(
        self,
        tolerance: float = 0.0,
        *,
        force: Force | None = None,
        sites: Collection[str] | None = None,
        formulation: Formulation = "grouped",
        fold_constants: bool = True,
    ) -> None:
        require_formulation(formulation)
        self.allowed = Allowed(tolerance, force)
        self.sites = sites
        self.formulation = formulation
        self.fold_constants = fold_constants

    def call(self, graph_module: GraphModule) -> PassResult:
        verdicts = _judged(graph_module, self.allowed, self.sites, self.fold_constants)
        pending = [verdict for verdict in verdicts if is_pending(verdict, self.fold_constants)]
        if not pending:
            return PassResult(graph_module, False)
        shared = clone_module(graph_module, compiled=False)
        nodes = {node.name: node for node in shared.graph.nodes}
        rewrite_sites(
            shared, [on_copy(verdict, nodes) for verdict in pending], self.fold_constants, self.formulation
        )
        return PassResult(shared, True)


def share_kernels(
    model: nn.Module | ExportedProgram,
    example_inputs: Sequence[Any] | None = None,
    *,
    tolerance: float = 0.0,
    force: Force | None = None,
    sites: Collection[str] | None = None,
    formulation: Formulation = "grouped",
) -> GraphModule:
    """``model`` as a graph module in which each shared convolution holds one kernel. It can be trained.

    Args:
        model: an ``nn.Module``, ``torch.fx.GraphModule`` or ``torch.export.ExportedProgram``. It is not
            changed.
        example_inputs: positional arguments of ``model``, for models that cannot be traced symbolically.
        tolerance, force, sites, formulation: as in :class:`ShareKernels`.

    Returns:
        A graph module with the names and state_dict keys of ``model``. Only shared weights, and biases that
        repeat, have another shape. Sites that are not shared are logged with the reason, at level INFO.

        Without example inputs it has the modules of ``model``, and ``train()`` and ``eval()`` work. There are
        two exceptions, both logged at level WARNING: code that asks for ``self.training``, and hooks that do
        not run.

        With example inputs it is a graph of ``torch.export``. Its mode is the one that ``model`` was in. Code
        under ``no_grad`` or without autocast stays as it is. torch cannot pickle the graph, so save its
        state_dict.

    Raises:
        CaptureError: no route gave a graph of the model.
        UsageError: the model has no site of a name in ``sites``.
        ValueError: ``tolerance`` is negative, ``force`` is neither ``"mean"`` nor ``"first"``, or there is no
            such ``formulation``.

    Example:
        >>> import torch
        >>> conv = nn.Conv2d(3, 3, 3, groups=3, bias=False)
        >>> _ = conv.weight.data.copy_(torch.rand(1, 1, 3, 3))
        >>> shared = share_kernels(conv)
        >>> x = torch.rand(1, 3, 8, 8)
        >>> torch.equal(shared(x), conv(x)), sum(p.numel() for p in shared.parameters())
        (True, 9)
    """
    require_formulation(formulation)
    capture_of = capture(model, example_inputs)
    captured = capture_of.graph_module
    if capture_of.route == "symbolic_trace" and isinstance(model, nn.Module):
        for fixed in fixed_by_tracing(model, captured):
            log.warning("the shared model: %s", fixed)
    if captured is model:
        captured = clone_module(captured)
    share_in_place(captured, Allowed(tolerance, force), sites, formulation)
    return captured


def _judged(
    graph_module: GraphModule, allowed: Allowed, sites: Collection[str] | None, goes_on: bool
) -> list[Verdict]:
    """The verdicts. ``goes_on``: the model will be loaded or trained, and not exported as it is."""
    verdicts = judge_graph(graph_module, allowed, sites, frozen=not goes_on)
    return [refuse_changing(verdict) for verdict in verdicts] if goes_on else verdicts


def share_in_place(
    graph_module: GraphModule,
    allowed: Allowed = EXACT,
    sites: Collection[str] | None = None,
    formulation: Formulation = "grouped",
    fold_constants: bool = True,
) -> tuple[bool, list[Finding]]:
    """Share all possible sites of a graph module that nobody else holds.

    Args:
        allowed: how far repeats may differ.
        sites, formulation, fold_constants: as in :class:`ShareKernels`.

    Returns:
        Whether the graph module was modified, and the findings.
    """
    verdicts = _judged(graph_module, allowed, sites, fold_constants)
    for finding in (verdict.finding for verdict in verdicts if verdict.finding.refusal):
        log.info("%s is not shared: %s", finding.id, finding.reason)
    pending = [verdict for verdict in verdicts if is_pending(verdict, fold_constants)]
    if pending:
        rewrite_sites(graph_module, pending, fold_constants, formulation)
    else:
        load_repeated(graph_module)  # for a model that was written with shared modules
    return bool(pending), [verdict.finding for verdict in verdicts]
