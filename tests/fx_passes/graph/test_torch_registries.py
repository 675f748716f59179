"""What a module of torch holds: parameters, buffers, modules, and the memory of a tensor."""

from __future__ import annotations

import torch
from torch import nn

from fx_passes.graph import torch_internals as internals


def test_parameters_held() -> None:
    """A parameter that is None is among them. The module uses what is put there."""
    linear = nn.Linear(2, 2, bias=False)
    held = internals.parameters_held(linear)
    assert list(held) == ["weight", "bias"]
    assert held["bias"] is None
    held["weight"] = nn.Parameter(torch.zeros(2, 2))
    assert linear.weight is held["weight"]
    assert not linear(torch.ones(2)).any()


def test_buffers_held() -> None:
    """A buffer that is None is among them. The module uses what is put there."""
    norm = nn.BatchNorm1d(2)
    norm.register_buffer("none", None)
    held = internals.buffers_held(norm)
    assert list(held) == ["running_mean", "running_var", "num_batches_tracked", "none"]
    held["running_mean"] = torch.ones(2)
    assert norm.running_mean is held["running_mean"]


def test_modules_held() -> None:
    """A module with two names is there twice. The model calls what is put there."""
    relu = nn.ReLU()
    model = nn.Sequential(relu, relu)
    held = internals.modules_held(model)
    assert list(held) == ["0", "1"]
    held["1"] = nn.Hardtanh(0, 0.5)
    assert model(torch.ones(1)) == 0.5


def test_own_registries() -> None:
    """Two modules share all attributes. After it, the new one does not change the old one."""
    old = nn.Sequential(nn.BatchNorm1d(2))
    old.register_parameter("weight", nn.Parameter(torch.ones(1)))
    new = nn.Sequential.__new__(nn.Sequential)
    new.__dict__.update(vars(old))
    internals.own_registries(new)
    assert new.weight is old.weight
    new.weight = nn.Parameter(torch.zeros(1))
    new.register_buffer("extra", torch.ones(1))
    new.append(nn.ReLU())
    assert list(old.state_dict()) == [k for k in new.state_dict() if k != "extra"]
    assert old.weight == 1
    assert len(old) == 1


def test_unsaved_buffers() -> None:
    """These buffers are not in the state_dict. Nor are those that are added to them."""
    module = nn.Module()
    module.register_buffer("saved", torch.ones(1))
    module.register_buffer("lost", torch.ones(1), persistent=False)
    assert internals.unsaved_buffers(module) == {"lost"}
    internals.unsaved_buffers(module).add("saved")
    assert list(module.state_dict()) == []


def test_assign_attribute() -> None:
    """It sets parameters and buffers by dotted names. It makes the modules on the way."""
    module, parameter, buffer = nn.Module(), nn.Parameter(torch.ones(1)), torch.zeros(1)
    internals.assign_attribute(parameter, module, "a.b.weight")
    internals.assign_attribute(buffer, module, "a.mean")
    assert module.get_parameter("a.b.weight") is parameter
    assert module.get_buffer("a.mean") is buffer


def test_storage_id() -> None:
    """Views have the id of their memory. Other memory has another id, also on the meta device."""
    for device in ("cpu", "meta"):
        one, other = torch.empty(4, device=device), torch.empty(4, device=device)
        same = one[1:].expand(2, 3).detach()
        assert internals.storage_id(one) == internals.storage_id(same) != internals.storage_id(other)
