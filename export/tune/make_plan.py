"""The plan of a job: the one that is given, the one that the rules make, or the fastest one."""

from __future__ import annotations

from dataclasses import replace

from export.runtime.environment import environment
from export.stages import Stages
from export.tune.fastest import tune
from export.tune.options import Options
from export.tune.subject import Subject
from fx_passes.choose.plan_fits import require_fitting
from fx_passes.choose.static_rules import static_plan
from fx_passes.errors import ExportError, UsageError
from fx_passes.plan import Choice, Plan
from fx_passes.records import EXACTNESS


def make_plan(subject: Subject, options: Options, stages: Stages) -> Plan:
    """The plan for the sites of ``subject``. Its graph is not changed.

    Raises:
        UsageError: the given plan does not fit, or is less exact than allowed.
    """
    sites = subject.sites
    if options.plan is not None:
        require_fitting(options.plan, sites)
        if EXACTNESS.index(options.plan.exactness) > EXACTNESS.index(options.exactness):
            raise UsageError(f"the plan is {options.plan.exactness}, and only {options.exactness} is allowed")
        return options.plan
    if options.lowering == "static":
        return static_plan(sites, options.exactness)
    kept = {site.id: Choice(site.key, None) for site in sites}
    if options.lowering == "expand":
        return Plan(kept, {"by": "expand"})
    try:
        plan = tune(subject, options, stages)
    except ExportError as error:
        # A lowering that cannot be exported or run cannot be timed. The convolutions as they are can be.
        plan = Plan(kept, {"by": "tuning", "failed": str(error)})
    return replace(plan, made={**plan.made, "environment": environment(*options.targets)})
