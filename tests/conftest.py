"""What every test needs: a repeatable torch, and a torchvision that imports."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, settings

from fx_passes.records import Proposal

# timm and transformers import torchvision, whose wheel cannot load its compiled operators beside a CPU-only
# torch. Its Python part imports once the schemas that it registers fake kernels for exist.
_torchvision = torch.library.Library("torchvision", "FRAGMENT")
_torchvision.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
_torchvision.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

# The same cases each time, so that a red test is the fault of the change that is tested. New ones come with
# `pytest tests/lowerings --hypothesis-profile=long`, which takes an hour.
settings.register_profile(
    "repeatable", max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
settings.register_profile("long", settings.get_profile("repeatable"), max_examples=1000, derandomize=False)
settings.load_profile("repeatable")


# Some warnings torch gives once in a process: the test that comes first would fail, whichever that is.
torch.set_warn_always(True)


@pytest.fixture(autouse=True)
def _repeatable() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)


# By lowering; in 16 phases, with rows split.
_ORDER = (
    "grouped",
    "fold_channels",
    "lift",
    "separable",
    "polyphase",
    "transposed_polyphase",
    "separable_polyphase",
)


@pytest.fixture(scope="module")
def simple_rules() -> Iterator[None]:
    """The static rules choose by the name of the lowering, from 4096 outputs on: tests of what follows them
    depend on no constant that was fitted, and need no large sites."""

    def gain(site: Any, proposal: Proposal, instead: Sequence[Proposal | None] = ()) -> float:
        params = {"phases": 16, "interleave": "split", **dict(proposal.params)}
        resample, small = site.resample, min(site.kernel.shape[2:]) < 4
        if proposal.merged or proposal.lowering not in _ORDER:
            return 0.0
        if (params["phases"], params["interleave"]) != (16, "split"):
            return 0.0
        if (resample.outputs or 4096) < 4096 or (proposal.lowering == "separable_polyphase" and small):
            return 0.0
        blocked = resample.groups % 16 == 0
        if (blocked and resample.dim == 2) != (proposal.lowering == "separable") and resample.up == 1:
            return 1.5 if proposal.lowering in ("grouped", "fold_channels") else 0.0
        return 2.0 + _ORDER.index(proposal.lowering)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fx_passes.choose.static_rules.static_gain", gain)
        yield
