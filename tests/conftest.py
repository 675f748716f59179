"""What every test needs: a repeatable torch, and a torchvision that imports."""

from __future__ import annotations

import pytest
import torch

# timm and transformers import torchvision, whose wheel cannot load its compiled operators beside a CPU-only
# torch. Its Python part imports once the schemas that it registers fake kernels for exist.
_torchvision = torch.library.Library("torchvision", "FRAGMENT")
_torchvision.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
_torchvision.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


@pytest.fixture(autouse=True)
def _repeatable() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)


@pytest.fixture
def eager_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    """The static rules lower whatever can be lowered, so that a test of what follows needs no large site."""
    monkeypatch.setattr("fx_passes.choose.MARGIN", 0.0)
