"""Tensors of a model -> arrays for onnxruntime, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from export.runtime.session import Array
from fx_passes.errors import UsageError
from fx_passes.graph.torch_internals import pytree


def tensor_arrays(inputs: Sequence[Any]) -> list[Array]:
    """The tensors among (nested) example inputs as arrays, in the order of the inputs of an ONNX file."""
    tensors = [leaf for leaf in pytree.tree_leaves(inputs) if isinstance(leaf, Tensor)]
    try:
        return [tensor.detach().cpu().numpy() for tensor in tensors]
    except TypeError as error:  # bfloat16 and the like, which numpy does not have
        raise UsageError(f"example inputs cannot be passed to onnxruntime: {error}") from error


def with_arrays(example_inputs: Sequence[Any], arrays: Sequence[Array]) -> tuple[Any, ...]:
    """The example inputs with ``arrays`` in place of their tensors."""
    remaining = iter(arrays)

    def swap(leaf: Any) -> Any:
        return torch.from_numpy(np.array(next(remaining))) if isinstance(leaf, Tensor) else leaf

    return pytree.tree_map(swap, tuple(example_inputs))  # type: ignore[no-any-return]


def shape_text(shape: Sequence[Any]) -> str:
    """A shape as a person writes it.

    Example:
        >>> shape_text((3, 1, 11, 11))
        '3x1x11x11'
    """
    return "x".join(map(str, shape))
