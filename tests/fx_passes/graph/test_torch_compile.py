"""The private parts of torch.compile."""

from __future__ import annotations

import pytest
import torch
from small_programs import graph_of
from torch import nn

from fx_passes.graph import torch_internals as internals


def test_is_static_input() -> None:
    """Parameters and buffers of the model are static. The inputs of the caller are not."""
    (graph_module,) = graph_of(nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 2)).eval(), torch.rand(1, 2))
    inputs = [node for node in graph_module.graph.nodes if node.op == "placeholder"]
    static = [node.name for node in inputs if internals.is_static_input(node)]
    assert [node.name for node in inputs if "parameters" in node.name or "buffers" in node.name] == static
    assert len(static) == len(inputs) - 1 == 6


def test_options_of_mode() -> None:
    """A mode is a dict of settings. An unknown mode is an error."""
    assert internals.options_of_mode("max-autotune")["max_autotune"] is True
    assert internals.options_of_mode("default") == {}
    with pytest.raises(RuntimeError, match="nonsense"):
        internals.options_of_mode("nonsense")


@pytest.mark.slow
def test_inductor() -> None:
    """It returns what a backend returns. It takes settings of inductor."""
    torch.compiler.reset()
    compiled = torch.compile(
        lambda x: x.sin() + 1,
        backend=lambda graph, inputs: internals.inductor(graph, inputs, {"max_autotune": False}),
    )
    x = torch.rand(3)
    torch.testing.assert_close(compiled(x), x.sin() + 1)
