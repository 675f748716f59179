"""An optimizer that goes on after its model was shared."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from fx_passes import UsageError, share_kernels, share_optimizer

GROUPS = 4


def alike(seed: int = 0) -> nn.Sequential:
    """A model whose repeats stay the same in training: the input and what is wanted repeat as well."""
    torch.manual_seed(seed)
    conv = nn.Conv1d(2 * GROUPS, 2 * GROUPS, 3, groups=GROUPS, dtype=torch.float64)
    with torch.no_grad():
        conv.weight.copy_(conv.weight[:2].repeat(GROUPS, 1, 1))
        bias = conv.get_parameter("bias")
        bias.copy_(bias[:2].repeat(GROUPS))
    return nn.Sequential(conv)


def step(model: nn.Module, optimizer: torch.optim.Optimizer, number: int) -> Tensor:
    generator = torch.Generator().manual_seed(number)
    x = torch.randn(3, 2, 9, dtype=torch.float64, generator=generator).repeat(1, GROUPS, 1)
    optimizer.zero_grad()
    loss = model(x).square().sum()
    loss.backward()
    optimizer.step()
    return loss


def five_steps(
    model: nn.Module, optimizer: torch.optim.Optimizer, reference: torch.optim.Optimizer, shared: nn.Module
) -> None:
    """Of a model, and of what was shared from the start, with the same gradients."""
    for number in range(5):
        step(model, optimizer, number)
        step(shared, reference, number)


def test_momentum_of_sgd_is_the_sum() -> None:
    """Exactly what a model shared from the start would have, had it had these gradients."""
    model = alike()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-9, momentum=0.9)
    from_the_start = share_kernels(model)
    reference = torch.optim.SGD(from_the_start.parameters(), lr=1e-9, momentum=0.9)
    five_steps(model, optimizer, reference, from_the_start)
    shared = share_kernels(model)
    share_optimizer(optimizer, model, shared)
    for name, parameter in shared.named_parameters():
        expected = reference.state[from_the_start.get_parameter(name)]["momentum_buffer"]
        torch.testing.assert_close(optimizer.state[parameter]["momentum_buffer"], expected, rtol=1e-5, atol=0)
    assert [p.shape for p in optimizer.param_groups[0]["params"]] == [(2, 2, 3), (2,)]
    before = {name: p.clone() for name, p in shared.named_parameters()}
    step(shared, optimizer, 9)
    assert all(not torch.equal(p, before[name]) for name, p in shared.named_parameters())
    assert len(optimizer.state) == 2


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
def test_moments_of_adam(kind: type[torch.optim.Adam]) -> None:
    """The first is the sum; the second is above the right one, and that is reached where gradients agree."""
    model = alike()
    optimizer = kind(
        model.parameters(), lr=1e-9, amsgrad=True, weight_decay=0.0 if kind is torch.optim.Adam else 0.1
    )
    from_the_start = share_kernels(model)
    reference = kind(from_the_start.parameters(), lr=1e-9, amsgrad=True)
    five_steps(model, optimizer, reference, from_the_start)
    shared = share_kernels(model)
    share_optimizer(optimizer, model, shared)
    for name, parameter in shared.named_parameters():
        found, expected = optimizer.state[parameter], reference.state[from_the_start.get_parameter(name)]
        assert found["step"] == expected["step"] == 5
        for key in ("exp_avg", "exp_avg_sq", "max_exp_avg_sq"):
            torch.testing.assert_close(found[key], expected[key], rtol=1e-5, atol=0)


def test_the_second_moment_is_a_bound() -> None:
    """Where the gradients of the repeats differ, it is larger than the right one: no step is too large."""
    model = alike()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-9)
    gradients = torch.randn(GROUPS, 2, 2, 3, dtype=torch.float64)
    model.get_parameter("0.weight").grad = gradients.flatten(0, 1)
    optimizer.step()
    shared = share_kernels(model, tolerance=1e-6)
    share_optimizer(optimizer, model, shared)
    state = optimizer.state[shared.get_parameter("0.weight")]
    torch.testing.assert_close(state["exp_avg"], 0.1 * gradients.sum(0))
    right = 0.001 * gradients.sum(0) ** 2
    assert (state["exp_avg_sq"] >= right).all()
    assert (state["exp_avg_sq"] > 2 * right).any()


def test_what_was_not_shared_keeps_its_state() -> None:
    """Parameters that are the same objects stay where they are; others are nobody's business."""
    torch.manual_seed(0)
    model = nn.Sequential(alike()[0], nn.Conv1d(8, 2, 1, dtype=torch.float64))
    shared_one, own = model.get_parameter("0.weight"), model.get_parameter("1.weight")
    optimizer = torch.optim.SGD(
        [{"params": [own], "lr": 1.0}, {"params": [shared_one], "lr": 0.5}], momentum=0.5
    )
    step(model, optimizer, 0)
    kept = optimizer.state[own]["momentum_buffer"]
    shared = share_kernels(model, force="mean")
    share_optimizer(optimizer, model, shared)
    assert optimizer.state[shared.get_parameter("1.weight")]["momentum_buffer"] is kept
    assert [(g["lr"], g["params"][0].shape) for g in optimizer.param_groups] == [
        (1.0, (2, 8, 1)),
        (0.5, (2, 2, 3)),
    ]


REFUSED = {
    "rmsprop": (
        lambda p: torch.optim.RMSprop(p),
        "`RMSprop` keeps `step` of `0.weight`",
    ),
    "decay": (
        lambda p: torch.optim.SGD(p, momentum=0.9, weight_decay=0.1),
        "the momentum of `0.weight` in `SGD` contains the weight decay once for each repeat",
    ),
    "adam": (
        lambda p: torch.optim.Adam(p, weight_decay=0.1),
        "in `Adam` contains the weight decay once for each repeat",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_no_rule(name: str) -> None:
    """What cannot be mapped is refused, and nothing changes; before the first step nothing is mapped."""
    make, message = REFUSED[name]
    model = alike()
    optimizer = make(model.parameters())
    share_optimizer(make(model.parameters()), model, share_kernels(model))
    step(model, optimizer, 0)
    before, groups = (
        copy.deepcopy(optimizer.state_dict()),
        [list(g["params"]) for g in optimizer.param_groups],
    )
    with pytest.raises(UsageError, match=message):
        share_optimizer(optimizer, model, share_kernels(model, force="first"))
    assert str(optimizer.state_dict()) == str(before)
    assert all(
        a is b
        for old, g in zip(groups, optimizer.param_groups, strict=True)
        for a, b in zip(old, g["params"], strict=True)
    )


def test_decoupled_decay_is_not_in_the_moments() -> None:
    """Adam with ``decoupled_weight_decay`` is AdamW."""
    model = alike()
    optimizer = torch.optim.Adam(model.parameters(), weight_decay=0.1, decoupled_weight_decay=True)
    step(model, optimizer, 0)
    share_optimizer(optimizer, model, share_kernels(model, force="mean"))
    assert [p.shape for p in optimizer.param_groups[0]["params"]] == [(2, 2, 3), (2,)]


def test_names_have_to_match() -> None:
    """A wrapper in front of the model gives its parameters other names: nothing would be trained any more."""
    model = alike()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(UsageError, match=r"`0\.0\.weight` of the model is neither in the shared model"):
        share_optimizer(optimizer, nn.Sequential(model), share_kernels(model))
    replaced = share_kernels(copy.deepcopy(nn.Sequential(model[0], nn.Conv1d(8, 2, 1))))
    outer = nn.Sequential(model[0], nn.Conv1d(8, 2, 1))
    with pytest.raises(UsageError, match=r"`1\.weight` of the model is neither"):
        share_optimizer(torch.optim.SGD(outer.parameters()), outer, replaced)


def test_another_model() -> None:
    """A shared model that is not of this one."""
    optimizer = torch.optim.SGD((model := alike()).parameters())
    other = nn.Sequential(nn.Conv1d(3, 3, 3, groups=3))
    with pytest.raises(UsageError, match=r"`0\.weight` of the model is neither in the shared model nor"):
        share_optimizer(optimizer, model, share_kernels(other, force="first"))
