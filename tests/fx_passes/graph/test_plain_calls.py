"""Graphs of torch.export that take their arguments as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fx_passes.capture.routes import capture
from fx_passes.graph.input_check import check_inputs
from fx_passes.graph.plain_calls import call_plainly


class Of(nn.Module):
    """A module of two inputs."""

    def __init__(self, function: Callable[[Any, Any], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Any, y: Any) -> Any:
        return self.function(x, y)


X, Y = torch.rand(2, 3), torch.rand(2, 3)


@pytest.mark.parametrize(
    ("function", "y", "plain"),
    [
        (lambda x, y: x + y, Y, True),
        (lambda x, y: (x + y, x), Y, True),
        (lambda x, y: [x + y], Y, True),
        (lambda x, y: x, Y, True),
        (lambda x, y: {"sum": x + y}, Y, False),
        (lambda x, y: (x, (x + y,)), Y, False),
        (lambda x, y: x + y[0], [Y], False),
    ],
    ids=["one", "tuple", "list", "input", "dictionary", "nested", "list in"],
)
def test_what_goes_in_and_out(function: Any, y: Any, plain: bool) -> None:
    """By place and by name, the same values in the same structure. What has a structure is left as it is."""
    graph_module = capture(Of(function), (X, y)).graph_module
    check_inputs(graph_module)  # torch's own check takes nothing by name
    call_plainly(graph_module)
    assert ("tree" not in graph_module.code) == plain
    expected = function(X, y)
    for found in (graph_module(X, y), graph_module(X, y=y), graph_module(y=y, x=X)):
        assert type(found) is type(expected)
        torch.testing.assert_close(found, expected)


def test_arguments_by_name() -> None:
    """An argument that is only given by name stays one."""

    class Named(nn.Module):
        def forward(self, x: Tensor, *, y: Tensor) -> Tensor:
            return x + y

    graph_module = torch.export.export(Named(), (X,), {"y": Y}).module(check_guards=False)
    code = graph_module.code
    call_plainly(graph_module)
    assert graph_module.code == code


def test_a_traced_graph() -> None:
    """Symbolic tracing makes plain graphs. They stay as they are."""
    graph_module = torch.fx.symbolic_trace(Of(torch.add))
    code = graph_module.code
    call_plainly(graph_module)
    assert graph_module.code == code
    assert isinstance(graph_module(X, Y), Tensor)
