"""Which rewritten site makes two graphs of one model differ?

Sharing keeps the names of convolution nodes, so both graphs are run in PyTorch on the input that
showed the difference, and the first site, in program order, whose outputs differ is to blame: what
goes into it is the same in both.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node

from fx_passes.lower import LOWERED
from fx_passes.records import Finding


class _Recorder(Interpreter):
    """Runs a graph and keeps the outputs of the nodes whose names it is given."""

    def __init__(self, graph_module: GraphModule, names: set[str], floating: torch.dtype | None) -> None:
        super().__init__(graph_module)
        self.names, self.floating = names, floating
        self.outputs: dict[str, Tensor] = {}

    def run_node(self, n: Node) -> Any:
        result = super().run_node(n)
        if self.floating and isinstance(result, Tensor) and result.is_floating_point():
            result = result.to(self.floating)  # a graph may say float32, as where it takes integers
        if n.name in self.names and isinstance(result, Tensor):
            self.outputs[n.name] = result.detach()
        return result


def blame_site(
    original: GraphModule,
    rewritten: GraphModule,
    findings: Sequence[Finding],
    inputs: Sequence[Any],
    *,
    bitwise: bool = True,
) -> str | None:
    """The id of the first shared site whose output differs, or None where PyTorch sees no difference.

    Args:
        bitwise: compare bits; otherwise both graphs run in float64, where only an error differs visibly.
    """
    # A lowered site is one call, which computes what the last node it replaced did.
    lowered = {
        n.meta[LOWERED][0]: (n.meta[LOWERED][1], n.name) for n in rewritten.graph.nodes if LOWERED in n.meta
    }
    watched = {f.id: lowered.get(f.id, (f.site.node, f.site.node)) for f in findings if f.shared}
    before = _outputs(original, {old for old, _ in watched.values()}, inputs, bitwise)
    after = _outputs(rewritten, {new for _, new in watched.values()}, inputs, bitwise)
    for site, (old, new) in watched.items():
        first, second = before.get(old), after.get(new)
        if first is not None and (second is None or not _same(first, second, bitwise)):
            return site
    return None


def _outputs(
    graph_module: GraphModule, names: set[str], inputs: Sequence[Any], bitwise: bool
) -> dict[str, Tensor]:
    # On a copy: in training mode a run writes to the statistics of batch norms.
    copied = copy.deepcopy(graph_module)
    if not bitwise:
        copied = copied.double()
        inputs = [x.double() if isinstance(x, Tensor) and x.is_floating_point() else x for x in inputs]
    recorder = _Recorder(copied, names, None if bitwise else torch.float64)
    try:
        with torch.no_grad():
            recorder.run(*inputs)
    except Exception:  # a site of another output shape stops what comes after it; what ran counts
        pass
    return recorder.outputs


def _same(first: Tensor, second: Tensor, bitwise: bool) -> bool:
    if first.shape != second.shape:
        return False
    equal = (first == second) | (first.isnan() & second.isnan())
    if bitwise or not first.numel():
        return bool(equal.all())
    # A kernel is rounded to float32 once more where it is factored.
    largest = torch.where(first.isfinite(), first.abs(), 0.0).max()
    return bool((equal | ((first - second).abs() <= 1e-6 * largest)).all())
