"""What two resamplings in a row compute, as records."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from fx_passes.lowerings import MODULES, propose
from fx_passes.records import Proposal
from fx_passes.resample.axes import Axis, Resample
from fx_passes.resample.compose import composed

AXIS, IDLE, OPEN = Axis(3, shift=1), Axis(1), (None, 3, None, None)
FIRST = Resample((IDLE, AXIS), 3, 1, 1, "zeros", False, OPEN, OPEN)
SECOND = replace(FIRST, axes=(AXIS, IDLE))


@pytest.mark.parametrize(
    "other",
    [
        replace(SECOND, out_shape=(None, 6, None, None)),
        replace(SECOND, out_shape=(6, None, None)),
        replace(SECOND, block_diagonal=True),
        replace(SECOND, factors=(1.0, 2.0, 3.0)),
        replace(SECOND, axes=(AXIS,)),
    ],
)
def test_what_cannot_be_composed(other: Resample) -> None:
    """With open sizes, planes must stay where they are. Groups that differ are not one filter."""
    assert composed(FIRST, SECOND) == replace(FIRST, axes=(AXIS, AXIS), composed=True)
    assert composed(FIRST, other) is None


def test_a_product_is_not_bitwise(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel is rounded, whatever a lowering says of its sums."""
    claims = SimpleNamespace(propose=lambda resample, kernel: [Proposal("exact", (), "bitwise")])
    monkeypatch.setitem(MODULES, "exact", claims)  # type: ignore[arg-type]
    both, kernel = composed(FIRST, SECOND), torch.ones(1, 1, 3, 3)
    assert both is not None
    assert [p.exactness for p in propose(both, kernel)[0] if p.lowering == "exact"] == ["reordered"]
    assert [p.exactness for p in propose(FIRST, kernel)[0] if p.lowering == "exact"] == ["bitwise"]
