"""The pass: keep one kernel for every convolution whose groups repeat it, and expand it at run time.

Before:  conv(x, weight (groups * rows, ...))      every group a copy, trained, stored and exported apart
After:   conv(x, expand(kernel (rows, ...)))       ``Tensor.expand``: every group is the one kernel

The output is the same bit for bit, because the expanded weight is. The gradient of the kernel is the
sum over the groups of the gradients of the repeats, by the chain rule of ``expand``.
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
    """A ``torch.fx`` pass that shares the kernel of every convolution it can.

    Args:
        tolerance: largest absolute distance of a repeat from the mean of the repeats that is kept; 0.0
            shares only what is bitwise equal, and then the output is bitwise equal too.
        force: keep the ``"mean"`` of the repeats, or the ``"first"``, however far apart they are. What
            changes is logged for each site, at level WARNING, and is in its finding: the largest change of
            a weight, and how far the output may move for inputs of magnitude 1.
        sites: ids of the only sites where tolerance and force hold, as :func:`find_shared_kernels` gives
            them; without, they hold for every grouped convolution, those included that are meant to differ.
        formulation: how shared modules compute (``train/formulations.py`` lists the ways): ``"grouped"``
            has the bits of the original, ``"auto"`` is fast in training and rounds differently.
        fold_constants: put the value of a kernel that is computed from constants in a buffer; a buffer that
            is not saved (``persistent=False``) counts as one. Off, the graph is for an exporter: the
            computation stays in it, to be folded by the exporter's own arithmetic, and what can be trained
            is a constant.

    The result is a graph module of its own; the one given is left as it was. Tensors that are not cut
    down are the same objects in both.

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
    """``model`` as a graph module in which each shared convolution holds one kernel; trainable.

    Args:
        model: an ``nn.Module``, ``torch.fx.GraphModule`` or ``torch.export.ExportedProgram``; not changed.
        example_inputs: positional arguments of ``model``, for models that cannot be traced symbolically.
        tolerance, force, sites, formulation: as in :class:`ShareKernels`.

    Returns:
        A graph module with the names and state_dict keys of ``model``; only shared weights (and biases that
        repeat) have another shape. What is not shared is logged, with the reason, at level INFO. Without
        example inputs it has the modules of ``model``, and ``train()`` and ``eval()`` work, but for what its
        code asks of ``self.training``, which is logged at level WARNING, as are hooks that do not run. With
        them it is a graph of ``torch.export``, whose mode is the one that ``model`` was in, in which what is
        under ``no_grad`` or without autocast stays as it is, and which torch cannot pickle: save its
        state_dict.

    Raises:
        CaptureError: no route gave a graph of the model.
        UsageError: the model has no site of a name in ``sites``.
        ValueError: ``tolerance`` is negative, ``force`` neither ``"mean"`` nor ``"first"``, or there is no
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
    """The verdicts; ``goes_on``: the model is going to be loaded or trained, not exported as it is."""
    verdicts = judge_graph(graph_module, allowed, sites, frozen=not goes_on)
    return [refuse_changing(verdict) for verdict in verdicts] if goes_on else verdicts


def share_in_place(
    graph_module: GraphModule,
    allowed: Allowed = EXACT,
    sites: Collection[str] | None = None,
    formulation: Formulation = "grouped",
    fold_constants: bool = True,
) -> tuple[bool, list[Finding]]:
    """Share what can be shared in a graph module that nobody else holds; modified, and the findings."""
    verdicts = _judged(graph_module, allowed, sites, fold_constants)
    for finding in (verdict.finding for verdict in verdicts if verdict.finding.refusal):
        log.info("%s is not shared: %s", finding.id, finding.reason)
    pending = [verdict for verdict in verdicts if is_pending(verdict, fold_constants)]
    if pending:
        rewrite_sites(graph_module, pending, fold_constants, formulation)
    else:
        load_repeated(graph_module)  # what was written with shared modules
    return bool(pending), [verdict.finding for verdict in verdicts]
