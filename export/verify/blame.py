"""Which rewritten site makes two graphs of one model differ?

Both graphs run in PyTorch on the input that showed the difference. In the rewritten graph, the result of each
site is replaced by that of the original before anything else uses it. So every site gets the input that it
has in the original, and is tried by itself. A site is to blame if both graphs computed it and the results
differ.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node

from export.verify.float64 import Float64
from fx_passes.errors import one_line
from fx_passes.graph.clone import clone_module
from fx_passes.lower import SITE_OF_CALL
from fx_passes.records import Finding

log = logging.getLogger(__name__)

# Of sum |term|: a factored kernel is rounded to float32 once more, and again with its scale.
UNITS = 8.0


class _Sites(Interpreter):
    """Runs a graph, keeps the values of nodes, and goes on with the values of ``instead``.

    Args:
        names: the nodes to keep.
        convolutions: those whose sums of |terms| are wanted.
        mode: the mode of the run; None: float32.
    """

    def __init__(
        self,
        graph_module: GraphModule,
        names: set[str],
        convolutions: set[str],
        mode: Float64 | None,
        instead: dict[str, Tensor],
    ) -> None:
        super().__init__(graph_module)
        self.names, self.convolutions, self.mode, self.instead = names, convolutions, mode, instead
        self.outputs: dict[str, Tensor] = {}
        self.magnitudes: dict[str, float] = {}

    def run_node(self, n: Node) -> Any:
        measured = self.mode is not None and n.name in self.convolutions
        with self.mode.measuring() if self.mode and measured else contextlib.nullcontext():
            result = super().run_node(n)
        if self.mode is not None and measured:
            self.magnitudes[n.name] = self.mode.measured
        if n.name in self.names and isinstance(result, Tensor):
            self.outputs[n.name] = result.detach().clone()
        return self.instead.get(n.name, result)


def blame_site(
    original: GraphModule,
    rewritten: GraphModule,
    findings: Sequence[Finding],
    inputs: Sequence[Any],
    *,
    bitwise: bool = True,
) -> str | None:
    """The id of the first shared site whose output differs. None if PyTorch sees no difference.

    Args:
        original, rewritten: the graphs.
        findings: of all convolutions.
        inputs: what showed the difference.
        bitwise: compare bits. Otherwise both graphs run in float64, where only a real error is visible.
    """
    # A lowered site is one call. Its value is that of the last node that it replaced.
    lowered = {
        n.meta[SITE_OF_CALL][0]: (n.meta[SITE_OF_CALL][1], n.name)
        for n in rewritten.graph.nodes
        if SITE_OF_CALL in n.meta
    }
    watched = {f.id: lowered.get(f.id, (f.site.node, f.site.node)) for f in findings if f.shared}
    olds = {old for old, _ in watched.values()}
    convolutions = {f.site.node for f in findings if f.shared}
    before = _run(original, olds | convolutions, convolutions, inputs, bitwise, {})
    instead = {new: before.outputs[old] for old, new in watched.values() if old in before.outputs}
    after = _run(rewritten, set(instead), set(), inputs, bitwise, instead)
    sites = {f.id: f.site.node for f in findings}
    for site, (old, new) in watched.items():
        if old not in before.outputs or new not in after.outputs:
            log.info("site %s was not computed in both graphs, and is not compared", site)
            continue
        allowed = _allowed(before, sites[site], old)
        if not _same(before.outputs[old], after.outputs[new], bitwise, allowed):
            return site
    return None


def _run(
    graph_module: GraphModule,
    names: set[str],
    convolutions: set[str],
    inputs: Sequence[Any],
    bitwise: bool,
    instead: dict[str, Tensor],
) -> _Sites:
    mode = None if bitwise else Float64()
    # On a clone: in training mode a run writes to the statistics of batch norms.
    sites = _Sites(clone_module(graph_module), names, convolutions, mode, instead)
    try:
        with torch.no_grad(), mode or contextlib.nullcontext():
            sites.run(*inputs)
    except Exception as error:  # the rest was not computed, and is not compared
        log.warning("looking for the site to blame stopped: %s: %s", type(error).__name__, one_line(error))
        log.debug("the run that stopped", exc_info=True)
    return sites


def _allowed(before: _Sites, conv: str, end: str) -> float:
    """How far a site with these sums may differ in float64, behind what follows its convolution."""
    magnitude = before.magnitudes.get(conv, 0.0)
    scaled = before.outputs.get(conv), before.outputs.get(end)
    largest = [0.0 if x is None else _largest(x) for x in scaled]
    if largest[0] and largest[1]:
        magnitude *= max(1.0, largest[1] / largest[0])
    return UNITS * 2.0**-24 * max(magnitude, largest[1])


def _largest(x: Tensor) -> float:
    finite = torch.where(x.isfinite(), x.abs(), 0.0)
    return float(finite.max()) if x.numel() else 0.0


def _same(first: Tensor, second: Tensor, bitwise: bool, allowed: float) -> bool:
    if first.shape != second.shape:
        return False
    equal = (first == second) | (first.isnan() & second.isnan())
    return bool((equal if bitwise else equal | ((first - second).abs() <= allowed)).all())
