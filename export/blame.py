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

from fx_passes.records import Finding


class _Recorder(Interpreter):
    """Runs a graph and keeps the outputs of the nodes whose names it is given."""

    def __init__(self, graph_module: GraphModule, names: set[str]) -> None:
        super().__init__(graph_module)
        self.names = names
        self.outputs: dict[str, Tensor] = {}

    def run_node(self, n: Node) -> Any:
        result = super().run_node(n)
        if n.name in self.names and isinstance(result, Tensor):
            self.outputs[n.name] = result.detach()
        return result


def blame_site(
    original: GraphModule,
    rewritten: GraphModule,
    findings: Sequence[Finding],
    inputs: Sequence[Any],
) -> str | None:
    """The id of the first shared site whose output differs, or None where PyTorch sees no difference."""
    shared = [finding for finding in findings if finding.shared]
    outputs = []
    for graph_module in (original, rewritten):
        # On a copy: in training mode a run writes to the statistics of batch norms.
        recorder = _Recorder(copy.deepcopy(graph_module), {finding.site.node for finding in shared})
        try:
            with torch.no_grad():
                recorder.run(*inputs)
        except Exception:  # a site of another output shape stops what comes after it; what ran counts
            pass
        outputs.append(recorder.outputs)
    for finding in shared:
        before, after = (recorded.get(finding.site.node) for recorded in outputs)
        if before is None:
            continue
        if after is None or not torch.equal(before, after):
            return finding.id
    return None
