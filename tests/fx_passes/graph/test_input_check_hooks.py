"""The check of inputs is a hook: hooks of the user stay beside it, and copies of a graph have it."""

from __future__ import annotations

import copy
import functools
from typing import Any

import pytest
import torch
from blurred import OneImage, image, refusal
from torch import nn
from torch.export._unlift import _check_input_constraints_pre_hook

from fx_passes.capture.routes import capture
from fx_passes.graph.input_check import InputCheck
from fx_passes.lower import lower


def doubled(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    return (args[0] * 2,)


@pytest.mark.parametrize("module_name", ["my_export_hooks", "torch.export._unlift", "torch.export"])
@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("first", [False, True])
def test_hooks_of_the_user_stay(module_name: str, traced: bool, first: bool) -> None:
    """Hooks stay wherever they come from, before torch's check or behind it.

    What they return is what is computed.
    """
    x = image()
    graph = torch.fx.symbolic_trace(OneImage()) if traced else capture(OneImage(), (x,)).graph_module
    hook: Any = lambda module, args: (args[0] * 2,)  # noqa: E731 - torch's own hook is a lambda, too
    hook.__module__ = module_name
    graph.register_forward_pre_hook(hook, prepend=first)
    graph.register_forward_hook(lambda module, args, output: output + 1)
    graph.register_forward_pre_hook(functools.partial(doubled))
    lowered = lower(graph, "static", (x,))
    torch.testing.assert_close(lowered(x), graph(x), rtol=1e-4, atol=1e-3)
    hooks = lowered._forward_pre_hooks.values()
    assert hook in hooks
    assert any(isinstance(h, InputCheck) for h in hooks) is not traced
    assert _check_input_constraints_pre_hook not in hooks
    # The graph that was given is as it was.
    assert (_check_input_constraints_pre_hook in graph._forward_pre_hooks.values()) is not traced


def test_a_check_that_the_user_switched_off_stays_off() -> None:
    """``validate_inputs`` is torch's own switch."""
    graph = capture(OneImage(), (image(),)).graph_module
    graph.validate_inputs = False  # type: ignore[assignment]  # torch reads it, its types do not say so
    assert not any(isinstance(h, InputCheck) for h in lower(graph)._forward_pre_hooks.values())


def test_copies_check_as_well() -> None:
    """A deep copy refuses what its original refuses."""
    graph = copy.deepcopy(lower(OneImage(), "static", (image(),)))
    if graph._forward_pre_hooks:
        assert "got (1, 3, 32, 40)" in refusal(graph, image(1, 3, 32, 40))
    with pytest.raises(ValueError, match="shape"):
        graph(image(1, 3, 32, 40))
