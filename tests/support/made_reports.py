"""Reports with any number of sites, made without a model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from export.report.details import Details, Operators, SiteDetail
from export.report.result import Report
from export.speed import Timing
from export.verify.equivalence import Equivalence
from export.verify.evidence import OutputError
from export.verify.site_check import SiteError
from fx_passes.plan import Choice, Plan
from fx_passes.records import ConvGeometry, ConvSite, Finding, Proposal, Refusal, SharedKernel, WeightOrigin
from fx_passes.timing.claims import Block

WAY = Proposal("separable", (), "reordered")


def finding(
    name: str, *, taps: Sequence[int] = (5, 5), groups: int = 4, reason: str | None = None
) -> Finding:
    """A shared site; with a reason, one that is not shared."""
    geometry = ConvGeometry(
        f"conv{len(taps)}d", groups, groups, groups, tuple(taps), (1,) * len(taps), (0,) * len(taps),
        (1,) * len(taps), (0,) * len(taps),
    )  # fmt: skip
    site = ConvSite(name, "aten", name, geometry, (groups, 1, *taps), WeightOrigin("buffer"))
    if reason is not None:
        return Finding(site, refusal=Refusal(name, "repeats", "differs", reason))
    return Finding(site, SharedKernel(groups, (1, 1, *taps)))


def timing(ratio: float, blocks: int = 8, spread: float = 0.01) -> Timing:
    """A measurement with this ratio, and a control of 1, in an even number of blocks or in one."""
    ends = [math.exp(spread * (1 - number % 2 * 2)) if blocks > 1 else 1.0 for number in range(blocks)]
    return Timing(tuple(Block((ratio * end,) * 3, (1.0,) * 3, (ratio,) * 3) for end in ends))


def report(
    lowered: Sequence[Finding] = (),
    others: Sequence[Finding] = (),
    *,
    kernels: dict[str, Any] | None = None,
    speed: Timing | None = None,
    **changes: Any,
) -> Report:
    """A report in which ``lowered`` are separable and ``others`` are as they were. Each lowered site
    is of its own kind, and has its candidates timed."""
    rng = np.random.default_rng(0)
    keys = {one.id: f"key{number}" for number, one in enumerate(lowered)}
    made = {
        "timings_ms": {key: {"separable": 0.5, "expand": 1.25, "polyphase": 0.75} for key in keys.values()}
    }
    sites = {
        one.id: SiteDetail(
            rng.standard_normal((1, 1, *one.site.geometry.kernel))
            if kernels is None
            else kernels.get(one.id),
            ("Pad", "Conv"),
            ("Conv", "Conv"),
            SiteError(1e-6 / 10 ** (number % 12), 1e-6),
        )
        for number, one in enumerate(lowered)
    }
    known = Report(
        model="models.py:net",
        output=Path("out.onnx"),
        lowering="tuned",
        route="torch.export",
        findings=(*lowered, *others),
        equivalence=Equivalence(True, 7, False, "float64", (OutputError("y", 1e-7, 2e-7, 1e-6),)),
        speed=speed,
        speed_at=(((((1, 4, 8, 8),)), speed),) if speed else (),
        baseline_bytes=4096,
        optimized_bytes=2048,
        environment={"fx-passes": "0", "cpu": "some", "threads": 1},
        plan=Plan({name: Choice(key, WAY) for name, key in keys.items()}, made),
        details=Details(sites, Operators({"Conv": 2.0, "Pad": 1.0}, {"Conv": 1.0}), {"w": 900}, {"w": 36}),
    )
    return replace(known, **changes)
