"""The private functions of torch that flatten containers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fx_passes.graph import torch_internals as internals


@dataclass
class Pair:
    """A container that a user registered."""

    first: Tensor
    second: Tensor


torch.export.register_dataclass(Pair, serialized_type_name="test_torch_pytree.Pair")


def test_pytree() -> None:
    """It gives leaves, structures and paths, also of a class that a user registered."""
    pytree, pair = internals.pytree, Pair(torch.ones(1), torch.zeros(1))
    value: tuple[Any, ...] = ([1, {"a": 2}], None, pair)
    leaves, spec = pytree.tree_flatten(value)
    assert leaves == pytree.tree_leaves(value) == [1, 2, None, pair.first, pair.second]
    assert pytree.tree_unflatten(leaves, spec) == value
    assert pytree.tree_map(lambda leaf: (leaf,), [1, {"a": 2}]) == [(1,), {"a": (2,)}]
    paths = pytree.tree_flatten_with_path(value)[0]
    assert [pytree.keystr(path) for path, _ in paths][:3] == ["[0][0]", "[0][1]['a']", "[1]"]
    assert spec.num_leaves == 5
    assert [child.is_leaf() for child in spec.children()] == [False, True, False]
    assert spec.child(0) == pytree.tree_structure(value[0])
    assert spec.child(0).child(1).context == ["a"]
    assert list(pytree.SUPPORTED_NODES[Pair].flatten_fn(pair)[0]) == [pair.first, pair.second]


def test_tree_flatten_spec() -> None:
    """It gives the leaves in the order of the structure."""
    value = {"b": [1, (2, 3)], "a": 4, "c": Pair(torch.ones(1), torch.zeros(1))}
    spec = internals.pytree.tree_structure(value)
    assert internals.tree_flatten_spec(value, spec) == internals.pytree.tree_leaves(value)
