"""The private registries of torch that hold the hooks of a module or a parameter."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest
import torch
from torch import nn

from fx_passes.graph import torch_internals as internals


def test_forward_hooks() -> None:
    """It holds the registered hooks by a key. A hook that is taken out does not run."""
    relu, x = nn.ReLU(), torch.ones(1)
    handle = relu.register_forward_hook(lambda module, args, output: output + 1)
    assert relu(x) == 2
    assert list(internals.forward_hooks(relu)) == [handle.id]
    internals.forward_hooks(relu).clear()
    assert relu(x) == 1


def test_forward_pre_hooks() -> None:
    """A new hook runs in the place of the old one. It gets keywords if the old one got them."""
    relu, said = nn.ReLU(), list[str]()
    relu.register_forward_pre_hook(lambda module, args: said.append("first"))
    handle = relu.register_forward_pre_hook(lambda module, args, kwargs: None, with_kwargs=True)
    relu.register_forward_pre_hook(lambda module, args: said.append("last"))
    hooks = internals.forward_pre_hooks(relu)
    hooks[handle.id] = lambda module, args, kwargs: said.append(str(list(kwargs)))
    relu(input=torch.ones(1))
    assert said == ["first", "['input']", "last"]
    hooks.clear()
    relu(torch.ones(1))
    assert len(said) == 3


@pytest.mark.parametrize("register", ["register_full_backward_hook", "register_full_backward_pre_hook"])
def test_has_backward_hooks(register: str) -> None:
    """Both kinds of backward hooks are found."""
    relu = nn.ReLU()
    assert not internals.has_backward_hooks(relu)
    getattr(relu, register)(lambda *args: None)
    assert internals.has_backward_hooks(relu)


REGISTER = [name for name, _ in inspect.getmembers(nn.Module) if re.fullmatch(r"register_.*_hook", name)]


@pytest.mark.parametrize("register", REGISTER)
def test_has_hooks(register: str) -> None:
    """Every kind of hook of a module is found."""
    assert len(REGISTER) >= 8
    relu = nn.ReLU()
    assert not internals.has_hooks(relu)
    getattr(relu, register)(lambda *args: None)
    assert internals.has_hooks(relu)


@pytest.mark.parametrize("register", ["register_hook", "register_post_accumulate_grad_hook"])
def test_has_hooks_of_a_parameter(register: str) -> None:
    """Both kinds of hooks of a parameter are found."""
    parameter = nn.Parameter(torch.ones(1))
    assert not internals.has_hooks(parameter)
    getattr(parameter, register)(lambda *args: None)
    assert internals.has_hooks(parameter)


def test_load_hooks() -> None:
    """Each entry knows the hook that was registered. A hook that is taken out does not run."""
    linear, said = nn.Linear(1, 1), list[str]()

    def hook(*args: Any) -> None:
        said.append("loaded")

    internals.register_load_hook(linear, hook)
    (key, wrapped), *_ = internals.load_hooks(linear).items()
    assert wrapped.hook is hook
    linear.load_state_dict(linear.state_dict())
    del internals.load_hooks(linear)[key]
    linear.load_state_dict(linear.state_dict())
    assert said == ["loaded"]


def test_register_load_hook() -> None:
    """The hook gets state_dict and prefix. It runs for a copy although the first module is gone."""
    linear, seen = nn.Linear(1, 1, bias=False), list[Any]()
    internals.register_load_hook(linear, lambda state_dict, prefix, *_: seen.append((*state_dict, prefix)))
    twin = nn.Linear(1, 1, bias=False)
    twin.__dict__.update(vars(linear))
    del linear
    nn.Sequential(twin).load_state_dict({"0.weight": torch.ones(1, 1)})
    assert seen == [("0.weight", "0.")]


def test_before_loading() -> None:
    """The method gets the prefix of its module. It runs before the load, which loads what it changed."""

    class Doubled(internals.BeforeLoading, nn.Linear):
        def before_loading(self, state_dict: dict[str, Any], prefix: str) -> None:
            assert prefix == "0."
            state_dict[f"{prefix}weight"] = state_dict[f"{prefix}weight"] * 2

    model = nn.Sequential(Doubled(1, 1, bias=False))
    model.load_state_dict({"0.weight": torch.ones(1, 1)})
    assert model[0].weight == 2
