"""``lower()`` does what a plan says, and refuses a plan for another model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from two_sites import Model, both, image, lowerings

from fx_passes.capture.routes import capture
from fx_passes.errors import UsageError
from fx_passes.lower import lower
from fx_passes.lowerings import propose
from fx_passes.plan import Choice, Plan
from fx_passes.records import Proposal
from fx_passes.resample.lowerable import lowerable_sites

pytestmark = pytest.mark.usefixtures("simple_rules")


def phases_everywhere(model: Any, inputs: Any, skip: int = -1) -> Plan:
    """A plan that lowers every site in phases, except the site number ``skip``. Two sites in a row stay
    two."""
    sites, _ = lowerable_sites(capture(model, inputs).graph_module)
    choices = {}
    for i, site in enumerate(sites):
        ways = [p for p in propose(site.resample, site.kernel)[0] if p.lowering.endswith("polyphase")]
        choices[site.id] = Choice(site.key, None if i == skip or site.parts else ways[0])
    return Plan(choices)


def test_equal_sites_are_one_module() -> None:
    """Two sites with the same kernel, bias and sizes call one module. Another bias makes another module."""
    model = Model(lambda m, x: (m.one(x), m.one(2 * x), m.one(x, bias=m.bias), m.one(x[:, :, 1:])))
    x = image()
    lowered = lower(model, phases_everywhere(model, (x,)), (x,))
    targets = [str(node.target) for node in lowered.graph.nodes if node.op == "call_module"]
    assert len(targets) == 4
    assert targets[0] == targets[1]
    assert len(set(targets)) == 3
    assert all(torch.equal(a, b) for a, b in zip(lowered(x), model(x), strict=True))


def test_what_the_plan_leaves_is_shared() -> None:
    """The plan lowers one site. The other is as ``share_kernels`` leaves it, and can be trained as before."""
    model, x = Model(both), image()
    lowered = lower(model, phases_everywhere(model, (x,), skip=0), (x,))
    assert lowerings(lowered) == ["polyphase"]
    assert lowered.get_parameter("first").shape == (1, 1, 3, 3)
    assert lowered.get_parameter("first").requires_grad
    assert torch.equal(lowered(x), model(x))


def test_a_plan_from_a_file() -> None:
    """A plan that was written and read does the same as the rules."""
    model, x = Model(both), image()
    plan = Plan.from_json(phases_everywhere(model, (x,)).to_json())
    assert lower(model, plan, (x,)).code == lower(model, "static", (x,)).code


def test_a_plan_for_another_model() -> None:
    """The plan is refused if the kernel, the sizes or the sites differ, or if a choice is not proposed."""
    model, x = Model(both), image()
    plan = phases_everywhere(model, (x,))
    with pytest.raises(UsageError, match="kernel or shapes of `conv2d` are not those"):
        lower(model, plan, (image(2, 4, 26, 41),))
    with pytest.raises(UsageError, match="1 sites differ, first `conv2d_1`"):
        lower(Model(lambda m, x: m.one(x)), plan, (x,))
    with torch.no_grad():
        model.second[:, 0, 0, 0] = 7
    with pytest.raises(UsageError, match="kernel or shapes of `conv2d_1` are not those"):
        lower(model, plan, (x,))
    sites, _ = lowerable_sites(capture(model, (x,)).graph_module)
    wanted = Plan({site.id: Choice(site.key, Proposal("lift", (), "reordered")) for site in sites})
    with pytest.raises(UsageError, match="asks for lift at `conv2d`, where the convolution has two"):
        lower(model, wanted, (x,))


@pytest.mark.parametrize(
    "function",
    [
        lambda m, x: m.two(m.one(x)[..., 1:-1]),
        lambda m, x: m.two(m.one(x).reshape(8, 24, 38).reshape(2, 4, 24, 38)),
        lambda m, x: m.two(F.pad(m.one(x), (1, 1))),
    ],
    ids=["crop", "reshape", "pad"],
)
def test_movements_between_two_sites(function: Callable[..., Tensor]) -> None:
    """One of two sites takes in what stands between them. The other one then does without it."""
    model, x = Model(function), image()
    lowered = lower(model, phases_everywhere(model, (x,)), (x,))
    assert torch.equal(lowered(x), model(x))


def test_the_rest_lowered_later() -> None:
    """A plan lowers one site. The rules lower the other one later."""
    model, x = Model(lambda m, x: (m.one(x), m.two(x))), image()
    first = lower(model, phases_everywhere(model, (x,), skip=1), (x,))
    second = lower(first)
    assert lowerings(second) == ["polyphase"] * 2
    assert all(torch.equal(a, b) for a, b in zip(second(x), model(x), strict=True))
