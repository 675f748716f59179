"""ONNX files around a grouped convolution that the static rules lower, at any opset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.helper as oh
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto
from onnx.numpy_helper import from_array

from export import optimize
from export.report.result import Report
from export.runtime.session import Array, open_session, run

LINE = np.exp(-((np.arange(11.0) - 5) ** 2) / 9)
# One window for three channels.
BLUR = np.tile((np.outer(LINE, LINE) / LINE.sum() ** 2).astype(np.float32), (3, 1, 1, 1))
IMAGE = (1, 3, 64, 64)
X = np.random.default_rng(0).random(IMAGE).astype(np.float32)
node = oh.make_node


def blur(source: str = "x", output: str = "y", kernel: str = "k", **more: Any) -> NodeProto:
    """The convolution. It keeps the size of the image, unless ``pads`` is given."""
    return node("Conv", [source, kernel], [output], **{"group": 3, "pads": [5] * 4, **more})


def image(name: str, shape: Sequence[int | str] = IMAGE) -> ValueInfoProto:
    return oh.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def message(
    nodes: Sequence[NodeProto],
    stored: Mapping[str, Array] | None = None,
    *,
    inputs: Sequence[ValueInfoProto] = (image("x"),),
    outputs: Sequence[ValueInfoProto] = (image("y"),),
    opset: int = 17,
    ir: int = 8,
) -> ModelProto:
    """A model of the given nodes, in which ``k`` is the window."""
    tensors = {"k": BLUR, **(stored or {})}
    graph = oh.make_graph(
        nodes, "test", inputs, outputs, [from_array(array, name) for name, array in tensors.items()]
    )
    return oh.make_model(graph, opset_imports=[oh.make_opsetid("", opset)], ir_version=ir)


def write(path: Path, model: ModelProto) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


def static(path: Path, out: Path, *arrays: Array) -> Report:
    """The report on a file that is optimized by the static rules."""
    return optimize(path, arrays or None, out, lowering="static", seconds=0)


def lowered(report: Report) -> int:
    """How many sites were lowered."""
    return sum(choice.proposal is not None for choice in report.plan.choices.values())


def require_same_outputs(path: Path, out: Path, *arrays: Array) -> None:
    """In onnxruntime both files compute the same, but for another order of sums. The result is sound."""
    onnx.checker.check_model(str(out), full_check=True)
    expected = run(open_session(path), arrays or (X,))
    for optimized in (True, False):
        found = run(open_session(out, optimized=optimized), arrays or (X,))
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-5 * float(np.abs(other).max(initial=0)))


def external(path: Path, model: ModelProto, *names: str, location: str = "w.bin") -> Path:
    """Write a model with some initializers in a file beside it, one behind the other."""
    if not names:
        return write(path, model)
    file, offset = path.parent / location, 0
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as stream:
        for tensor in model.graph.initializer:
            if tensor.name in names:
                numbers = tensor.raw_data
                onnx.external_data_helper.set_external_data(tensor, location, offset, len(numbers))
                tensor.ClearField("raw_data")
                offset += stream.write(numbers)
    return write(path, model)
