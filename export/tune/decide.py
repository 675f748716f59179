"""Which lowering each site gets: by a plan that is given, by rules, or by tuning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch.fx import GraphModule

from export.runtime.arrays import tensor_arrays
from export.runtime.environment import environment
from export.stages import Stages
from export.tune.search import Timings, tune
from export.tune.trial import Trial, make_trial
from fx_passes.choose.fitting import require_fitting
from fx_passes.choose.static_rules import static_plan
from fx_passes.errors import ExportError, UsageError
from fx_passes.graph.clone import clone_module
from fx_passes.lower import lower_in_place
from fx_passes.plan import Choice, Plan
from fx_passes.records import EXACTNESS, Exactness
from fx_passes.resample.site import Site
from fx_passes.share.share_kernels import share_in_place


@dataclass(frozen=True)
class Example:
    """The example inputs of a model.

    Args:
        inputs: positional arguments; what the file is verified and measured on.
        dynamic_shapes: which sizes stay open, as for ``torch.export.export``.
    """

    inputs: tuple[Any, ...]
    dynamic_shapes: Any


@dataclass(frozen=True)
class Decide:
    """How to decide, as the arguments of ``optimize`` say it."""

    lowering: str
    exactness: Exactness
    plan: Plan | None
    threads: int
    budget: float
    timings: Timings

    @property
    def tunes(self) -> bool:
        """Whether what is fastest here is looked for, and not what was asked for done."""
        return self.plan is None and self.lowering == "tuned"

    def decide(
        self,
        graph_module: GraphModule,
        sites: Sequence[Site],
        baseline: Path,
        example: Example,
        folder: Path,
        stages: Stages,
    ) -> Plan:
        """The plan for ``sites`` of ``graph_module``, which is left as it is.

        Args:
            baseline: the stock export of the model.
            folder: an empty one, for files that are timed.

        Raises:
            UsageError: the plan that was given does not fit, or is less exact than is allowed.
        """
        if self.plan is not None:
            require_fitting(self.plan, sites)
            if EXACTNESS.index(self.plan.exactness) > EXACTNESS.index(self.exactness):
                raise UsageError(f"the plan is {self.plan.exactness}, and only {self.exactness} is allowed")
            return self.plan
        if self.lowering == "expand":
            return Plan({site.id: Choice(site.key, None) for site in sites}, {"by": "expand"})
        if self.lowering == "static":
            return static_plan(sites, self.exactness)

        def trial_of(plan: Plan) -> Trial:
            lowered = clone_module(graph_module, compiled=False)
            lower_in_place(lowered, sites, plan)
            share_in_place(lowered, fold_constants=False)
            return make_trial(lowered, graph_module, sites, example.inputs, example.dynamic_shapes, folder)

        try:
            plan = tune(
                graph_module,
                sites,
                baseline,
                trial_of,
                tensor_arrays(example.inputs),
                exactness=self.exactness,
                threads=self.threads,
                budget=self.budget,
                timings=self.timings,
                stages=stages,
            )
        except ExportError as error:
            # What cannot be exported or run cannot be timed; the convolutions as they are can be.
            kept = {site.id: Choice(site.key, None) for site in sites}
            plan = Plan(kept, {"by": "tuning", "failed": str(error)})
        return replace(plan, made={**plan.made, "environment": environment(self.threads)})
