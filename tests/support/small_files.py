"""ONNX files of a few nodes, and the convolution in one of them computed in float64."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.helper as oh
from onnx import TensorProto

WEIGHT = np.random.default_rng(0).standard_normal((3, 1, 3, 3)).astype(np.float32)


def write(path: Path, nodes: list, inputs: dict, outputs: dict, **stored: np.ndarray) -> Path:
    """An ONNX file of the given nodes. Inputs and outputs are name -> (element type, shape)."""
    graph = oh.make_graph(
        nodes,
        "test",
        [oh.make_tensor_value_info(name, *info) for name, info in inputs.items()],
        [oh.make_tensor_value_info(name, *info) for name, info in outputs.items()],
        [onnx.numpy_helper.from_array(array, name) for name, array in stored.items()],
    )
    model = oh.make_model(graph, opset_imports=[oh.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return path


def conv(
    path: Path, weight: np.ndarray = WEIGHT, batch: int | str = 1, scale: float = 1.0, **more: Any
) -> Path:
    """y = scale * conv(x), grouped. With stride or pads, y has another size."""
    attributes = {"group": 3, "kernel_shape": [3, 3], **more}
    nodes = [
        oh.make_node("Conv", ["x", "w"], ["c"], **attributes),
        oh.make_node("Mul", ["c", "s"], ["y"]),
    ]
    size = (8 + (2 if "pads" in more else 0) - 3) // more.get("strides", [1])[0] + 1
    return write(
        path,
        nodes,
        {"x": (TensorProto.FLOAT, [batch, 3, 8, 8])},
        {"y": (TensorProto.FLOAT, [batch, 3, size, size])},
        w=weight,
        s=np.array(scale, np.float32),
    )


def one_tap(by: float) -> np.ndarray:
    """The kernel, with one tap changed by ``by``."""
    weight = WEIGHT.copy()
    weight[1, 0, 2, 0] += by
    return weight


def convolved(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The convolution in float64, tap by tap."""
    x = arrays[0].astype(np.float64)
    y = sum(
        WEIGHT[:, 0, i, j].astype(np.float64)[:, None, None] * x[:, :, i : i + 6, j : j + 6]
        for i in range(3)
        for j in range(3)
    )
    return [np.asarray(y)]


def identity(path: Path, kind: int, shape: list, op: str = "Identity", **stored: np.ndarray) -> Path:
    """y = op(x, *stored), of one type and one shape."""
    inputs = ["x", *stored]
    return write(
        path, [oh.make_node(op, inputs, ["y"])], {"x": (kind, shape)}, {"y": (kind, shape)}, **stored
    )
