"""The reference is the model in float64, whatever the model is made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from gaussian import Blur, lowered, static, window
from torch import Tensor, nn

from export.verify.reference import float64_reference

pytestmark = pytest.mark.usefixtures("simple_rules")


def reference_of(model: nn.Module, x: Tensor, path: Path) -> str:
    """What the report gives as the reference."""
    report = static(model, (x,), path)
    assert lowered(report)
    assert report.equivalence.notes == ()
    return report.equivalence.reference


def normed() -> nn.Module:
    return nn.Sequential(nn.utils.weight_norm(nn.Conv2d(16, 16, 1)), Blur())


def parametrized() -> nn.Module:
    return nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(16, 16, 1)), Blur())


class Plain(Blur):
    """One kernel is not a buffer. It is computed at the start, and such a tensor cannot be copied."""

    def __init__(self) -> None:
        super().__init__()
        weight = nn.Parameter(window().expand(16, 1, 11, 11).clone())
        self.plain = weight * 1.0

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + F.conv2d(x, self.plain.detach(), groups=16)


class Cast(Blur):
    """Its own code asks for float32."""

    def forward(self, x: Tensor) -> Tensor:
        assert x.dtype == torch.float32
        return super().forward(x.float() + torch.ones(1, dtype=torch.float32)).to(torch.float32)


@pytest.mark.slow
@pytest.mark.parametrize("make", [normed, parametrized, Plain, Cast])
def test_the_reference_is_float64_whatever_the_model_is_made_of(make: Any, tmp_path: Path) -> None:
    """A weight norm and a computed tensor cannot be copied. A cast undoes a conversion. The reference needs
    neither a copy nor a conversion."""
    said = reference_of(make(), torch.rand(1, 16, 40, 40), tmp_path / "o.onnx")
    assert said == "float64, within what rounding can do"


def test_a_reference_that_is_lost_is_said(tmp_path: Path) -> None:
    """The code of the model takes only float32. The captured graph takes float64 too, so no reference is lost
    and no note says so."""

    class Narrow(Blur):
        def forward(self, x: Tensor) -> Tensor:
            if x.untyped_storage().nbytes() != 4 * x.numel():
                raise TypeError("made for float32 alone")
            return super().forward(x)

    model, x = Narrow().eval(), torch.rand(1, 16, 40, 40)
    notes: list[str] = []
    reference = float64_reference(model, (x,), notes=notes)
    # The graph has no such check in it.
    assert reference is not None
    assert notes == []
