"""Kernels that a model repeats in each call are repeated once, where the convolution is kept."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fx_passes import Plan, lower
from fx_passes.graph.operators import base_name
from fx_passes.lower import PLAN


class Repeats(nn.Module):
    """Its first kernel is repeated in two calls, its second one is stored repeated."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Buffer(torch.rand(1, 1, 3, 3))
        self.stored = nn.Parameter(torch.rand(1, 1, 3, 3).repeat(4, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.kernel.repeat(4, 1, 1, 1)
        x = F.conv2d(F.conv2d(x, weight, groups=4).relu(), weight, groups=4)
        return F.conv2d(x, self.stored, groups=4)


def test_weights_are_computed_once() -> None:
    """The graph has no repeat and no expand; two uses of one weight read one tensor; the bits are the same.
    The model is as it was."""
    model, x = Repeats().eval(), torch.rand(2, 4, 20, 20)
    lowered = lower(model, "tuned", (x,), budget=0)
    operators = [base_name(node) for node in lowered.graph.nodes if node.op == "call_function"]
    assert operators == ["conv2d", "relu", "conv2d", "conv2d"]
    convolutions = [node for node in lowered.graph.nodes if base_name(node) == "conv2d"]
    read = [lowered.get_buffer(str(node.args[1].target)) for node in convolutions[:2]]
    assert read[0] is read[1]
    assert str(convolutions[2].args[1]) == "stored"
    assert torch.equal(lowered(x), model(x))
    assert model.kernel.shape == (1, 1, 3, 3)
    with torch.no_grad():
        model.kernel.zero_()
    assert not torch.equal(lowered(x), model(x))  # it is frozen, as a lowered kernel is


def test_a_plan_that_shares() -> None:
    """The same choices with sharing: the kernel is kept once, and expanded in each call."""
    model, x = Repeats().eval(), torch.rand(2, 4, 20, 20)
    kept = lower(model, "tuned", (x,), budget=0).meta[PLAN]
    assert Plan.from_json(kept.to_json()).shares is False
    shared = lower(model, Plan(kept.choices), (x,))
    assert shared.get_parameter("stored").shape == (1, 1, 3, 3)
    assert Plan.from_json(Plan(kept.choices).to_json()).shares is True
