"""Rewrites a graph: at each site, one kernel replaces its repeats, and is expanded."""

from __future__ import annotations

import logging
from typing import Any

from torch.fx import GraphModule, Node

from fx_passes.find.origin import way_to_source
from fx_passes.find.verdict import CutTensor, ExpandConstruction, ExpandValue, KeepOne, KeepScaled, Verdict
from fx_passes.graph import edit
from fx_passes.records import Finding, SharedKernel
from fx_passes.share.replace_module import share_module
from fx_passes.train.checkpoint import Cut, load_repeated, note_cut
from fx_passes.train.formulations import Formulation
from fx_passes.train.shared_conv import SharedKernelConv

log = logging.getLogger(__name__)


def rewrite_sites(
    graph_module: GraphModule,
    pending: list[Verdict],
    fold_constants: bool,
    formulation: Formulation = "grouped",
) -> None:
    """Share the sites of ``pending``, in place.

    Args:
        pending: verdicts on nodes of ``graph_module``, each with an action.
        fold_constants, formulation: as in :class:`~fx_passes.ShareKernels`.
    """
    sharing = _Sharing(graph_module, fold_constants, formulation)
    for verdict in pending:
        _warn_of_change(verdict.finding)
        sharing.share(verdict)
    load_repeated(graph_module)
    graph_module.graph.lint()
    graph_module.recompile()


def _warn_of_change(finding: Finding) -> None:
    kernel = finding.kernel
    if kernel is not None and kernel.max_difference > 0:
        log.warning(
            "%s: sharing changes its weights by up to %.3g, "
            "and its output by up to %.3g times the largest input",
            finding.id,
            kernel.max_difference,
            kernel.output_change,
        )


def is_pending(verdict: Verdict, fold_constants: bool) -> bool:
    """Whether sharing has anything to rewrite at a site."""
    match verdict.action:
        case None | KeepOne() | KeepScaled():
            weight = False
        case ExpandConstruction(expanded=True):
            weight = fold_constants and _foldable(verdict)
        case _:
            weight = True
    return weight or verdict.bias is not None


def _foldable(verdict: Verdict) -> bool:
    """Whether the model computes the kernel from constants each time it runs."""
    action = verdict.action
    if not isinstance(action, ExpandConstruction | ExpandValue):
        return False
    computed = verdict.finding.site.origin.kind == "computed"
    return computed and action.literal and action.kernel is not None


class _Sharing:
    """Rewrites the sites of one graph module. A tensor that several sites use is cut once."""

    def __init__(self, graph_module: GraphModule, fold_constants: bool, formulation: Formulation) -> None:
        self.graph_module = graph_module
        self.fold_constants = fold_constants
        self.formulation = formulation
        self.cut: set[str] = set()
        self.full_meta: dict[Node, dict[str, Any]] = {}

    def share(self, verdict: Verdict) -> None:
        kernel, call, bias = verdict.finding.kernel, verdict.call, verdict.bias
        assert kernel is not None
        for cut in (verdict.action, bias):
            if isinstance(cut, CutTensor):
                self._cut_tensor(cut)
        if call.form == "module":
            self._share_module(str(call.node.target), kernel)
            return
        match verdict.action:
            case CutTensor() as cut:
                self._expand_cut(verdict, "weight", call.weight, cut)
            case ExpandConstruction(expanded=True) if not (self.fold_constants and _foldable(verdict)):
                pass  # only the bias is cut
            case ExpandConstruction() | ExpandValue() as action:
                self._expand_computed(verdict, action, kernel)
        if bias is not None:
            self._expand_cut(verdict, "bias", call.bias, bias)

    def _cut_tensor(self, cut: CutTensor) -> None:
        if cut.names[0] not in self.cut:
            edit.cut_tensor(self.graph_module, cut.names, cut.kernel)
            self.cut.update(cut.names)

    def _share_module(self, target: str, kernel: SharedKernel) -> None:
        # A module that the graph calls twice is replaced once.
        if not isinstance(self.graph_module.get_submodule(target), SharedKernelConv):
            groups, diagonal = kernel.groups, kernel.block_diagonal
            share_module(self.graph_module, target, groups, diagonal, self.formulation)

    def _expand_cut(self, verdict: Verdict, role: edit.Role, passed: Any, cut: CutTensor) -> None:
        """Insert the expansion of a tensor that was cut at its source, directly before the convolution."""
        kernel, call = verdict.finding.kernel, verdict.call
        assert kernel is not None
        diagonal = kernel.block_diagonal and role == "weight"
        groups = kernel.groups if kernel.block_diagonal else call.groups
        shape = tuple(cut.kernel.shape)
        for name in cut.names:
            note_cut(self.graph_module, name, Cut(shape, kernel.groups, diagonal))
        for node in way_to_source(passed):
            if node not in self.full_meta:
                self.full_meta[node] = dict(node.meta)
                edit.cut_value(node, shape)
        edit.expand_argument(
            call.node,
            role,
            passed,
            shape,
            groups,
            block_diagonal=diagonal,
            meta=self.full_meta[passed],
        )

    def _expand_computed(
        self, verdict: Verdict, action: ExpandConstruction | ExpandValue, kernel: SharedKernel
    ) -> None:
        """Expand the kernel, taken from the node that holds it, from its value, or from the first block of
        the weight."""
        call, weight = verdict.call, verdict.call.weight
        assert isinstance(weight, Node)
        construction = action.construction if isinstance(action, ExpandConstruction) else None
        source = construction.source if construction else None
        if (self.fold_constants and _foldable(verdict)) or kernel.max_difference > 0:
            assert action.kernel is not None
            value = action.kernel.detach().clone()
            name = f"{verdict.finding.id}_kernel"
            source = edit.add_buffer(self.graph_module, name, value, call.node)
        elif source is None:
            source = edit.first_block(call.node, weight, kernel.shape)
        elif construction and construction.source_shape != kernel.shape:
            source = edit.reshaped(call.node, source, kernel.shape)
        edit.expand_argument(
            call.node,
            "weight",
            source,
            kernel.shape,
            kernel.groups if kernel.block_diagonal else call.groups,
            block_diagonal=kernel.block_diagonal,
            meta=weight.meta,
        )
        edit.erase_unused(weight)
