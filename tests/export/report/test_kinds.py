"""Which sites are of one kind."""

from __future__ import annotations

from dataclasses import replace

import made_reports as made
import numpy as np
import pytest

from export.report.details import SiteDetail
from export.report.kinds import kinds_of


@pytest.mark.parametrize(("tap", "kinds"), [(1.0, 1), (2.0, 2)])
def test_sites_that_no_plan_knows(tap: float, kinds: int) -> None:
    """They are of one kind if their kernels are equal too: the page shows one kernel for a kind."""
    found = made.report(others=[made.finding("a"), made.finding("b")])
    assert found.details is not None
    sites = {name: SiteDetail(np.full((1, 1, 5, 5), value)) for name, value in (("a", 1.0), ("b", tap))}
    found = replace(found, details=replace(found.details, sites=sites))
    assert len(kinds_of(found)) == kinds
