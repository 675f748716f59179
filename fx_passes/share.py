"""The pass: keep one kernel for every convolution whose groups repeat it, and expand it at run time.

Before:  conv(x, weight (groups * rows, ...))      every group a copy, trained, stored and exported apart
After:   conv(x, expand(kernel (rows, ...)))       ``Tensor.expand``: every group is the one kernel

The output is the same bit for bit, because the expanded weight is. The gradient of the kernel is the
sum over the groups of the gradients of the repeats, by the chain rule of ``expand``.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node
from torch.fx.passes.infra.pass_base import PassBase, PassResult

from fx_passes import rewrite
from fx_passes.capture import capture, clone_module
from fx_passes.find import judge
from fx_passes.records import Finding, SharedKernel
from fx_passes.shared_conv import _SharedKernel
from fx_passes.verdict import Verdict, on_copy
from fx_passes.weights.origin import way_to_source

log = logging.getLogger(__name__)


class ShareKernels(PassBase):
    """A ``torch.fx`` pass that shares the kernel of every convolution it can.

    Args:
        tolerance: largest absolute distance of a repeat from the mean of the repeats that is kept; 0.0
            shares only what is bitwise equal, and then the output is bitwise equal too.
        fold_constants: put the value of a kernel that is computed from constants in a buffer. Off, the
            computation stays in the graph, so that an exporter folds it with its own arithmetic.

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

    def __init__(self, tolerance: float = 0.0, *, fold_constants: bool = True) -> None:
        self.tolerance = tolerance
        self.fold_constants = fold_constants

    def call(self, graph_module: GraphModule) -> PassResult:
        verdicts = judge(graph_module, self.tolerance)
        pending = [verdict for verdict in verdicts if _pending(verdict, self.fold_constants)]
        if not pending:
            return PassResult(graph_module, False)
        shared = clone_module(graph_module, compiled=False)
        nodes = {node.name: node for node in shared.graph.nodes}
        _rewrite(shared, [on_copy(verdict, nodes) for verdict in pending], self.fold_constants)
        return PassResult(shared, True)


def share_kernels(
    model: nn.Module | ExportedProgram,
    example_inputs: Sequence[Any] | None = None,
    *,
    tolerance: float = 0.0,
) -> GraphModule:
    """``model`` as a graph module in which each shared convolution holds one kernel; trainable.

    Args:
        model: an ``nn.Module``, ``torch.fx.GraphModule`` or ``torch.export.ExportedProgram``; not changed.
        example_inputs: positional arguments of ``model``, for models that cannot be traced symbolically.
        tolerance: as in :class:`ShareKernels`.

    Returns:
        A graph module with the names and state_dict keys of ``model``; only shared weights (and biases that
        repeat) have another shape. What is not shared is logged, with the reason, at level INFO. Without
        example inputs it has the modules of ``model``, and ``train()`` and ``eval()`` work; with them it is a
        graph of ``torch.export``, whose mode is the one that ``model`` was in.

    Raises:
        CaptureError: no route gave a graph of the model.

    Example:
        >>> import torch
        >>> conv = nn.Conv2d(3, 3, 3, groups=3, bias=False)
        >>> _ = conv.weight.data.copy_(torch.rand(1, 1, 3, 3))
        >>> shared = share_kernels(conv)
        >>> x = torch.rand(1, 3, 8, 8)
        >>> torch.equal(shared(x), conv(x)), sum(p.numel() for p in shared.parameters())
        (True, 9)
    """
    captured = capture(model, example_inputs).graph_module
    if captured is model:
        captured = clone_module(captured)
    share_in_place(captured, tolerance)
    return captured


def share_in_place(
    graph_module: GraphModule, tolerance: float = 0.0, fold_constants: bool = True
) -> tuple[bool, list[Finding]]:
    """Share what can be shared in a graph module that nobody else holds; modified, and the findings."""
    verdicts = judge(graph_module, tolerance)
    for finding in (verdict.finding for verdict in verdicts if verdict.finding.refusal):
        log.info("%s is not shared: %s", finding.id, finding.reason)
    pending = [verdict for verdict in verdicts if _pending(verdict, fold_constants)]
    if pending:
        _rewrite(graph_module, pending, fold_constants)
    return bool(pending), [verdict.finding for verdict in verdicts]


def _rewrite(graph_module: GraphModule, pending: list[Verdict], fold_constants: bool) -> None:
    sharing = _Sharing(graph_module, fold_constants)
    for verdict in pending:
        sharing.share(verdict)
    graph_module.graph.lint()
    graph_module.recompile()


def _pending(verdict: Verdict, fold_constants: bool) -> bool:
    """Whether there is anything to rewrite at a site."""
    if not verdict.finding.shared:
        return False
    return not verdict.done or bool(verdict.bias_names) or (fold_constants and _foldable(verdict))


def _foldable(verdict: Verdict) -> bool:
    """Whether the kernel is computed from constants, each time the model runs."""
    computed = verdict.finding.site.origin.kind == "computed" and verdict.call.form != "module"
    return computed and verdict.literal and verdict.kernel is not None


class _Sharing:
    """Rewrites the sites of one graph module; a tensor that several of them use is cut once."""

    def __init__(self, graph_module: GraphModule, fold_constants: bool) -> None:
        self.graph_module = graph_module
        self.fold_constants = fold_constants
        self.cut: set[str] = set()
        self.full_meta: dict[Node, dict[str, Any]] = {}

    def share(self, verdict: Verdict) -> None:
        kernel, call = verdict.finding.kernel, verdict.call
        assert kernel is not None
        if verdict.names:
            self._cut_tensor(verdict.names, verdict.kernel)
        if verdict.bias_names:
            self._cut_tensor(verdict.bias_names, verdict.bias_kernel)
        if call.form == "module":
            self._share_module(str(call.node.target), kernel)
            return
        if verdict.names:
            self._expand_cut(verdict, "weight", call.weight, verdict.kernel)
        elif not verdict.done or (self.fold_constants and _foldable(verdict)):
            self._expand_computed(verdict, kernel)
        if verdict.bias_names:
            self._expand_cut(verdict, "bias", call.bias, verdict.bias_kernel)

    def _cut_tensor(self, names: tuple[str, ...], values: Tensor | None) -> None:
        assert values is not None
        if names[0] not in self.cut:
            rewrite.cut_tensor(self.graph_module, names, values)
            self.cut.update(names)

    def _share_module(self, target: str, kernel: SharedKernel) -> None:
        # A module that is called twice is one module.
        if not isinstance(self.graph_module.get_submodule(target), _SharedKernel):
            rewrite.share_module(self.graph_module, target, kernel.groups, kernel.block_diagonal)

    def _expand_cut(self, verdict: Verdict, role: rewrite.Role, passed: Any, values: Any) -> None:
        """Expand, right before the convolution, a tensor that has been cut down at its source."""
        kernel, call = verdict.finding.kernel, verdict.call
        assert kernel is not None
        for node in way_to_source(passed):
            if node not in self.full_meta:
                self.full_meta[node] = dict(node.meta)
                rewrite.cut_value(node, tuple(values.shape))
        expanded = rewrite.expand_argument(
            call.node,
            role,
            passed,
            tuple(values.shape),
            kernel.groups if kernel.block_diagonal else call.groups,
            block_diagonal=kernel.block_diagonal and role == "weight",
            meta=self.full_meta[passed],
        )
        expanded.meta[rewrite.CUT] = passed.name

    def _expand_computed(self, verdict: Verdict, kernel: SharedKernel) -> None:
        """Expand the kernel from the node that holds it, from its value, or from the weight's first block."""
        call, weight = verdict.call, verdict.call.weight
        assert isinstance(weight, Node)
        source = verdict.construction.source if verdict.construction else None
        if (self.fold_constants and _foldable(verdict)) or kernel.max_difference > 0:
            assert verdict.kernel is not None
            value = verdict.kernel.detach().clone()
            name = f"{verdict.finding.id}_kernel"
            source = rewrite.add_buffer(self.graph_module, name, value, call.node)
        elif source is None:
            source = rewrite.first_block(call.node, weight, kernel.shape)
        elif verdict.construction and verdict.construction.source_shape != kernel.shape:
            source = rewrite.reshaped(call.node, source, kernel.shape)
        rewrite.expand_argument(
            call.node,
            "weight",
            source,
            kernel.shape,
            kernel.groups if kernel.block_diagonal else call.groups,
            block_diagonal=kernel.block_diagonal,
            meta=weight.meta,
        )
        rewrite.erase_unused(weight)
