"""What is tuned: a graph with its sites, and the inputs for which it should be fast."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch.fx import GraphModule

from export.runtime.session import Array
from fx_passes.plan import Plan
from fx_passes.resample.site import Site
from fx_passes.tune.whole_graph import Trial


@dataclass(frozen=True)
class Subject:
    """The graph for which lowerings are chosen.

    Args:
        graph_module: the captured graph, before any lowering. It is not changed.
        sites: the sites in it that may be lowered.
        baseline: the stock export of the model.
        workloads: inputs of ``baseline``, each as arrays in their order. The choice is the fastest for them.
        trial_of: carries out a plan on the graph. The result can be varied and timed.
    """

    graph_module: GraphModule
    sites: Sequence[Site]
    baseline: Path
    workloads: Sequence[Sequence[Array]]
    trial_of: Callable[[Plan], Trial[Path]]
