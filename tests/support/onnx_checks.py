"""Checks of an ONNX file: it is sound, it stores few numbers, and its outputs are right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto
from torch import Tensor

# These operators only give a tensor another shape.
RESHAPES = {"Reshape", "Squeeze", "Unsqueeze"}


def names_in(graph: onnx.GraphProto) -> list[str]:
    """The names of nodes, then those of all values: inputs, initializers and what nodes compute."""
    values = [name for node in graph.node for name in node.output]
    return [
        *(f"node {node.name}" for node in graph.node),
        *(slot.name for slot in (*graph.input, *graph.initializer)),
        *values,
    ]


def require_sound(model: onnx.ModelProto) -> None:
    """The model is valid, and each name is unique. No opaque node is left, and nothing imports its domain."""
    onnx.checker.check_model(model, full_check=True)
    assert [opset.domain for opset in model.opset_import] == [""]
    assert {node.domain for node in model.graph.node} == {""}
    assert [name for name, count in Counter(names_in(model.graph)).items() if count > 1] == []


def numbers(tensors: Sequence[onnx.TensorProto]) -> int:
    """How many floating-point numbers are stored."""
    return sum(int(np.prod(t.dims)) for t in tensors if t.data_type == TensorProto.FLOAT)


def require_close(found: np.ndarray, expected: Tensor) -> None:
    """The arrays may differ as much as another order of sums, or a factored kernel, allows in float32."""
    expected = expected.detach()
    scale = float(expected.abs().max())
    np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=1e-5 * scale)
