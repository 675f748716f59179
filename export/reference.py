"""The original model as a function of arrays: its inputs for onnxruntime, and its outputs in float64."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from export.equivalence import Reference
from export.session import Array
from fx_passes.errors import UsageError


def tensor_arrays(inputs: Sequence[Any]) -> list[Array]:
    """The tensors among (nested) example inputs as arrays, in the order in which an ONNX file takes them."""
    tensors = [leaf for leaf in pytree.tree_leaves(inputs) if isinstance(leaf, Tensor)]
    try:
        return [tensor.detach().cpu().numpy() for tensor in tensors]
    except TypeError as error:  # bfloat16 and the like, which numpy does not have
        raise UsageError(f"example inputs cannot be passed to onnxruntime: {error}") from error


def float64_reference(model: nn.Module | ExportedProgram, example_inputs: Sequence[Any]) -> Reference | None:
    """The original model on float64, as a function of arrays; None where there is no module to convert."""
    if not isinstance(model, nn.Module):
        return None
    try:
        double = copy.deepcopy(model).double()
    except Exception:  # a module that cannot be copied, or refuses another dtype
        return None

    def reference(arrays: Sequence[Array]) -> list[Array]:
        # A copy for each call: a model that writes to its buffers would go on from where the last case ended.
        with torch.no_grad():
            outputs = copy.deepcopy(double)(*with_arrays(example_inputs, arrays, torch.float64))
        return [leaf.detach().numpy() for leaf in pytree.tree_leaves(outputs) if isinstance(leaf, Tensor)]

    return reference


def with_arrays(
    example_inputs: Sequence[Any], arrays: Sequence[Array], floating: torch.dtype | None = None
) -> tuple[Any, ...]:
    """The example inputs with ``arrays`` in the place of their tensors; floats as ``floating`` if given."""
    remaining = iter(arrays)

    def swap(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        tensor = torch.from_numpy(np.array(next(remaining)))
        return tensor.to(floating) if floating and tensor.is_floating_point() else tensor

    return pytree.tree_map(swap, tuple(example_inputs))  # type: ignore[no-any-return]
