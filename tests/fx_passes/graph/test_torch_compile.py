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


def test_traced_example() -> None:
    """dynamo writes a tensor with open sizes at an input, and the size at the input that is one."""
    torch.compiler.reset()
    found: list[torch.fx.Node] = []

    def backend(graph_module: torch.fx.GraphModule, inputs: list[object]) -> torch.fx.GraphModule:
        found.extend(node for node in graph_module.graph.nodes if node.op == "placeholder")
        return graph_module

    torch.compile(torch.sin, backend=backend, dynamic=True)(torch.rand(7))
    size, tensor = (internals.traced_example(node) for node in found)
    assert isinstance(size, torch.SymInt)
    assert isinstance(tensor, torch.Tensor)
    assert str(tensor.shape[0]) == str(size)


def test_options_of_mode() -> None:
    """A mode is a dict of settings. An unknown mode is an error."""
    assert internals.options_of_mode("max-autotune")["max_autotune"] is True
    assert internals.options_of_mode("default") == {}
    with pytest.raises(RuntimeError, match="nonsense"):
        internals.options_of_mode("nonsense")


def test_backend_compiler_failed() -> None:
    """An error of a backend comes as this one. The model has not run."""
    torch.compiler.reset()

    def broken(graph_module: torch.fx.GraphModule, inputs: list[object]) -> torch.fx.GraphModule:
        raise ValueError("planted")

    x = torch.rand(3)
    before = x.clone()
    with pytest.raises(internals.BackendCompilerFailed, match="planted"):
        torch.compile(lambda x: x.add_(1), backend=broken)(x)
    assert torch.equal(x, before)


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
