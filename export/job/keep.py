"""The way back: keep every convolution, if the rewritten file is not acceptable."""

from __future__ import annotations

import logging
from dataclasses import replace

from export.job.rewrite import Rewritten, rewrite
from export.job.source import Source
from export.job.verify import Verified, verify
from export.stages import Stages
from export.tune.options import Options
from fx_passes.errors import NotEquivalentError

log = logging.getLogger(__name__)


def verify_or_keep(source: Source, rewritten: Rewritten, options: Options, stages: Stages) -> Verified:
    """Verify. If only rounding makes the files differ, keep every convolution and verify that.

    A model may decide by thresholds. Then only its own rounding is right, even if the files agree on this
    processor. A site that is wrong in exact arithmetic is an error in any case. So is a plan that the caller
    gave.

    Raises:
        NotEquivalentError: the files differ by more than rounding, or the caller gave the plan.
    """
    try:
        return verify(source, rewritten, options.target, stages)
    except NotEquivalentError as error:
        if error.site is not None or options.plan is not None or rewritten.plan.exactness == "bitwise":
            raise
        said = str(error).removeprefix("not equivalent: ").partition("; no site")[0]
        log.warning("every convolution is kept: %s", said)
    return keep_all(source, rewritten, options, f"the model is sensitive to rounding: {said}", stages)


def keep_all(source: Source, rewritten: Rewritten, options: Options, why: str, stages: Stages) -> Verified:
    """Rewrite the original again with no site lowered, and verify that.

    Args:
        rewritten: the rewrite that is given up. Its file is replaced; the results of its tuning stay in the
            plan.
        why: the reason, for the report and for each site that was lowered.

    Raises:
        NotEquivalentError: the files differ all the same.
    """
    with stages.stage("keeping every convolution"):
        kept = rewrite(source, options, stages, keep=True)
        reasons = {**kept.reasons, **dict.fromkeys(rewritten.lowered, f"kept, as {why}")}
        plan = replace(kept.plan, made={**rewritten.plan.made, "kept": why})
        return verify(source, replace(kept, reasons=reasons, plan=plan), options.target, stages)
