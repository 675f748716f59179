"""Constant folding of the graph that computes a weight: what it gives, and what stops it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from fx_passes.graph.constants import NotConstant, fold, static_value
from fx_passes.graph.tensors import State


class Computes(nn.Module):
    """A model whose output is what is to be folded."""

    def __init__(self, function: Callable[[Computes, Tensor], Tensor], trainable: bool = False) -> None:
        super().__init__()
        self.function = function
        self.k = nn.Parameter(torch.arange(1.0, 5.0), requires_grad=trainable)
        self.b = nn.Buffer(torch.arange(4.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def folded(function: Callable[[Computes, Tensor], Tensor], trainable: bool = False) -> Tensor:
    """Fold the output of an exported model."""
    program = torch.export.export(Computes(function, trainable), (torch.ones(2, 4),))
    graph_module = program.module(check_guards=False)
    output = next(n for n in graph_module.graph.nodes if n.op == "output")
    return fold(output.args[0][0], output, State(graph_module))


def scatter(m: Computes, x: Tensor) -> Tensor:
    weight = x.new_zeros(4, 4)
    weight[torch.arange(4), torch.arange(4)] = m.b
    return weight


def write_through_view(m: Computes, x: Tensor) -> Tensor:
    weight = torch.zeros(4, 4)
    weight[0].copy_(m.b)
    weight.view(-1)[4:8].add_(1)
    return weight


def write_later(m: Computes, x: Tensor) -> Tensor:
    weight = m.b * 2
    result = weight + 0
    weight.mul_(0)
    return result


CONSTANTS = {
    "arithmetic": (lambda m, x: (m.k * 2).exp().sum() / m.b.max(), None),
    "in place on a fresh tensor": (scatter, torch.diag(torch.arange(4.0))),
    "in place through views": (
        write_through_view,
        torch.tensor([[0.0, 1, 2, 3], [1, 1, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0]]),
    ),
    "a write after the use": (write_later, torch.arange(4.0) * 2),
    "the shape of an input": (
        lambda m, x: m.b.repeat(x.shape[0]) * x.size(1),
        torch.arange(4.0).repeat(2) * 4,
    ),
    "like an input": (lambda m, x: torch.ones_like(x) + x.new_full((4,), 2.0), torch.full((2, 4), 3.0)),
}


@pytest.mark.parametrize("name", CONSTANTS)
def test_folds_to_what_the_model_computes(name: str) -> None:
    """Bit for bit what the model itself returns."""
    function, expected = CONSTANTS[name]
    value = folded(function)
    assert torch.equal(value, Computes(function)(torch.ones(2, 4)))
    if expected is not None:
        assert torch.equal(value, expected)


def writes_input(m: Computes, x: Tensor) -> Tensor:
    weight = m.b * 1
    weight[0] = x[0, 0]
    return weight


def writes_buffer(m: Computes, x: Tensor) -> Tensor:
    m.b.add_(1)
    return m.b * 1


OBSTACLES = {
    "runtime": (lambda m, x: m.b * x[0], "it depends on the input `x`"),
    "runtime by a write": (writes_input, "it depends on the input `x`"),
    "random": (lambda m, x: m.b * torch.rand(4), "draws random numbers"),
    "mutated": (writes_buffer, "`b` is written to by `add_`"),
}


@pytest.mark.parametrize("name", OBSTACLES)
def test_what_is_not_constant_says_why(name: str) -> None:
    """Inputs, random numbers and changing buffers stop the folding."""
    function, reason = OBSTACLES[name]
    with pytest.raises(NotConstant) as stopped:
        folded(function)
    assert stopped.value.code == name.split()[0]
    assert reason in stopped.value.reason


def test_a_trainable_parameter_is_not_folded_away() -> None:
    """With requires_grad the same computation is not constant."""
    assert folded(lambda m, x: m.k * 2).tolist() == [2.0, 4.0, 6.0, 8.0]
    with pytest.raises(NotConstant, match="it is computed from the trainable parameter `k`"):
        folded(lambda m, x: m.k * 2, trainable=True)


def test_folding_leaves_the_model_alone() -> None:
    """In-place operators run on copies that the graph makes, never on the model's tensors."""
    model = Computes(scatter)
    program = torch.export.export(model, (torch.ones(2, 4),))
    before = model.b.clone()
    graph_module = program.module(check_guards=False)
    output = next(n for n in graph_module.graph.nodes if n.op == "output")
    first = fold(output.args[0][0], output, State(graph_module))
    first.zero_()
    assert torch.equal(model.b, before)
    assert not torch.equal(fold(output.args[0][0], output, State(graph_module)), first)


def test_unknown_sizes_are_not_guessed() -> None:
    """Without example values a size is unknown, and the message says what to do."""
    graph_module = torch.fx.symbolic_trace(Computes(lambda m, x: m.b.repeat(x.shape[1])))
    size = next(n for n in graph_module.graph.nodes if n.name.startswith("getitem"))
    with pytest.raises(NotConstant, match="give example inputs, or make it static"):
        static_value(size)
