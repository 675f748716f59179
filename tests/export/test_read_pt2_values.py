"""The values and the tensors in a .pt2 file are read as they were saved, within limits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from changed_pt2 import saved
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from export.read_pt2.tensors import strided
from export.read_pt2.values import read_values
from fx_passes.errors import LoadError


@pytest.mark.parametrize(
    "value",
    [
        ((torch.ones(2, 3).T,), {"k": 3, "s": "a", "f": float("inf"), "n": None, "b": True, "c": 1j}),
        ([torch.arange(6).reshape(2, 3)[:, ::2], torch.ones(1, dtype=torch.uint16)], {}),
        {1: (torch.ones(0), torch.zeros((), dtype=torch.bool)), "p": nn.Parameter(torch.ones(2))},
        (torch.float16, torch.Size([2, 3]), torch.ones(3, dtype=torch.complex64)),
    ],
)
def test_values_are_what_was_saved(value: Any) -> None:
    """Inputs can have any strides, dtypes, containers and numbers. They are read as they were saved."""
    read = read_values(saved(value), "inputs")
    first, second = pytree.tree_flatten(value), pytree.tree_flatten(read)
    assert len(first[0]) == len(second[0])
    for one, two in zip(first[0], second[0], strict=True):
        if isinstance(one, Tensor):
            assert torch.equal(one, two)
            assert (one.dtype, one.stride(), type(one)) == (two.dtype, two.stride(), type(two))
        else:
            assert one == two


def test_one_list_inside_itself_many_times_ends() -> None:
    """A few bytes of pickle can stand for more values than memory holds.

    Such a list is refused. A list that holds itself is refused, too.
    """
    value: list[Any] = [1]
    for _ in range(60):
        value = [value, value]
    with pytest.raises(LoadError, match="more than 100000 values"):
        read_values(saved(value), "inputs")
    value.append(value)
    with pytest.raises(LoadError, match="inputs"):
        read_values(saved(value), "inputs")


def test_a_view_ends_where_its_bytes_end() -> None:
    """A view may use the last element that is stored, but not the element behind it."""
    stored = torch.zeros(16, dtype=torch.uint8)
    assert strided(stored, torch.float32, (2, 2), (2, 1), 0, "x").shape == (2, 2)
    assert strided(stored, torch.float32, (0, 9), (9, 1), 0, "x").numel() == 0
    for sizes, strides, offset in (((2, 2), (2, 1), 1), ((5,), (1,), 0), ((2,), (4,), 0), ((1,), (1,), 4)):
        with pytest.raises(LoadError, match="4 are stored"):
            strided(stored, torch.float32, sizes, strides, offset, "x")
    impossible: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
        ((-1,), (1,)),
        ((1,), (-1,)),
        ((1,), ()),
        ((True,), (1,)),
    ]
    for lengths, steps in impossible:
        with pytest.raises(LoadError, match="sizes"):
            strided(stored, torch.float32, lengths, steps, 0, "x")
