"""--dynamic: which sizes stay open."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from export.dynamic import dynamic_shapes
from fx_passes.errors import UsageError


class Two(nn.Module):
    def forward(self, image: Tensor, window: Tensor) -> Tensor:
        return image + window


INPUTS = (torch.ones(2, 3, 8), torch.ones(2, 3, 8))


def opened(*specs: str) -> list[set[int]]:
    shapes = dynamic_shapes(Two(), INPUTS, specs)
    assert shapes is not None
    return [set(shape or {}) for shape in shapes]


def test_forms() -> None:
    """Batch of every input, dimensions by name and by number, several at once."""
    assert dynamic_shapes(Two(), INPUTS, ()) is None
    assert opened("batch") == [{0}, {0}]
    assert opened("window:0,2") == [set(), {0, 2}]
    assert opened("0:1", "1:2") == [{1}, {2}]


def test_batch_is_one_size() -> None:
    """All inputs have the same open batch."""
    first, second = dynamic_shapes(Two(), INPUTS, ("batch",)) or ({}, {})
    assert first[0] is second[0]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("imge:0", "no argument 'imge'; there are image, window"),
        ("7:0", "no argument '7'"),
        ("image:9", "argument 'image' has no dimension '9'"),
        ("image:x", "argument 'image' has no dimension 'x'"),
        ("everything", "takes batch or INPUT:DIM"),
    ],
)
def test_errors(spec: str, message: str) -> None:
    """A typo is named."""
    with pytest.raises(UsageError, match=message):
        opened(spec)


def test_where_it_cannot_work() -> None:
    """Without inputs there is nothing to open; an exported program's sizes are fixed."""
    with pytest.raises(UsageError, match="needs example inputs"):
        dynamic_shapes(Two(), None, ("batch",))
    with pytest.raises(UsageError, match="fixed when it was exported"):
        dynamic_shapes(torch.export.export(Two(), INPUTS), INPUTS, ("batch",))
