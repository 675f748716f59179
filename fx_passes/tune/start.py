"""Begins a tuning as the caller of ``lower`` asked for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, cast, get_args

import torch
from torch.fx import GraphModule

from fx_passes.errors import UsageError
from fx_passes.plan import Plan
from fx_passes.records import EXACTNESS, Exactness
from fx_passes.resample.site import Site
from fx_passes.tune.in_torch import Compiler, Options, Runs, tune_in_torch
from fx_passes.tune.inputs import device_of, inputs_like
from fx_passes.tune.stopwatch import stopwatch_on

# Takes the graph with its sites, example inputs, and what carries a plan out, see ``tune_in_torch``.
Tuner = Callable[
    [GraphModule, Sequence[Site], Sequence[Any] | None, Callable[[Plan], GraphModule]],
    Plan,
]


def tuner(runs: Runs | Compiler, budget: float, exactness: Exactness) -> Tuner:
    """What finds the fastest plan.

    Raises:
        UsageError: an argument is wrong. The tuner raises it if there are no inputs, and on a device on which
            nobody can take times.
    """
    if not callable(runs) and runs not in get_args(Runs):
        raise UsageError(f"runs must be 'eager', 'compiled' or a function that compiles, got {runs!r}")
    if not isinstance(budget, int | float) or not 0 <= budget < math.inf:
        raise UsageError(f"budget must be a number of seconds, got {budget!r}")
    if exactness not in EXACTNESS:
        raise UsageError(f"exactness must be one of {', '.join(EXACTNESS)}, got {exactness!r}")
    compiler = cast(Compiler, torch.compile) if runs == "compiled" else runs if callable(runs) else None

    def tune(
        graph_module: GraphModule,
        sites: Sequence[Site],
        inputs: Sequence[Any] | None,
        carried_out: Callable[[Plan], GraphModule],
    ) -> Plan:
        given = inputs_like(graph_module) if inputs is None else inputs
        device = device_of(graph_module, given)
        options = Options(stopwatch_on(device), device, budget, exactness, compiler)
        return tune_in_torch(graph_module, sites, given, carried_out, options)

    return tune
