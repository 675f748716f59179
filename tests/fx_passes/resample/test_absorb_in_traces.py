"""What stands around a convolution in a symbolic trace, where modules may write in place."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from surroundings import Model, image, lower_all, require_equal
from torch import Tensor
from traced import with_sizes


def test_nothing_is_absorbed_across_a_write_by_a_module() -> None:
    """A ReLU writes into the input in place before the pad. The pad reads what was written."""
    model, x = Model(lambda m, x: m.conv(F.pad(m.relu(x), [1, 1]))), image()
    graph_module = with_sizes(model, x)
    lower_all(graph_module)
    require_equal(model, graph_module, x)


def test_a_write_by_a_module_in_between() -> None:
    """A ReLU in place writes into what was padded before."""

    def write(m: Model, x: Tensor) -> Tensor:
        y = F.pad(x, [1, 1])
        return m.conv(y) + m.relu(x).sum()

    def write_first(m: Model, x: Tensor) -> Tensor:
        y = F.pad(x, [1, 1])
        m.relu(x)
        return m.conv(y)

    for function in (write, write_first):
        model, x = Model(function), image()
        graph_module = with_sizes(model, x.clone())
        lower_all(graph_module)
        require_equal(model, graph_module, x)


def test_arguments_by_name() -> None:
    """``torch.reshape(input=...)`` in a symbolic trace has no positional argument."""
    model, x = Model(lambda m, x: m.conv(torch.reshape(input=x, shape=(2, 4, 8, 10)))), image()
    graph_module = with_sizes(model, x)
    lower_all(graph_module)
    require_equal(model, graph_module, x)
