"""Convolutions whose weights repeat one kernel, in every form, as ONNX messages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.helper as oh
import onnxruntime as ort
from onnx import ModelProto, NodeProto, ValueInfoProto
from onnx.numpy_helper import from_array, to_array

from export.read_onnx.model import OnnxModel
from export.read_onnx.sites import analyse
from export.runtime.session import Array, open_session, run
from export.write_onnx.kernels_once import repeated_in, store_once

_RANDOM = np.random.default_rng(0)


def _repeated(groups: int, *kernel: int) -> Array:
    return np.tile(_RANDOM.standard_normal(kernel), (groups, *[1] * (len(kernel) - 1)))


def _diagonal(groups: int, rows: int, columns: int, *taps: int) -> Array:
    """A dense weight with equal blocks on its diagonal."""
    weight = np.zeros((groups, rows, groups, columns, *taps))
    weight[range(groups), :, range(groups)] = _RANDOM.standard_normal((rows, columns, *taps))
    return weight.reshape(groups * rows, groups * columns, *taps)


@dataclass(frozen=True)
class Form:
    """A convolution.

    Args:
        weight: its numbers.
        sizes: of its input, without the batch.
        operators: those that make the weight of one kernel.
        attributes: of the node.
    """

    weight: Array
    sizes: tuple[int, ...]
    operators: tuple[str, ...]
    op: str = "Conv"
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """The channels of the output."""
        if self.op == "Conv":
            return int(self.weight.shape[0])
        return int(self.weight.shape[1]) * int(self.attributes["group"])


_EXPAND, _STACKED, _BLOCKS = ("Expand",), ("Expand", "Reshape"), ("Where", "Reshape")
_BY_TWO = {"group": 4, "strides": [2, 2]}
FORMS = {
    "rows 1": Form(_repeated(6, 1, 1, 9, 9), (6, 19, 17), _EXPAND, attributes={"group": 6}),
    "rows 2": Form(_repeated(8, 2, 1, 9, 9), (8, 19, 17), _STACKED, attributes={"group": 8}),
    "columns 2": Form(_repeated(4, 1, 2, 9, 9), (8, 19, 17), _EXPAND, attributes=_BY_TWO),
    "transposed": Form(_repeated(6, 1, 1, 9, 9), (6, 9, 7), _EXPAND, "ConvTranspose", {"group": 6}),
    "transposed, 2 by 3": Form(_repeated(4, 2, 3, 9, 9), (8, 9, 7), _STACKED, "ConvTranspose", _BY_TWO),
    "diagonal": Form(_diagonal(5, 1, 1, 5, 5), (5, 19, 17), _BLOCKS),
    "diagonal, 2 by 3": Form(_diagonal(4, 2, 3, 5, 5), (12, 19, 17), _BLOCKS),
    "1-D": Form(_repeated(5, 2, 1, 90), (5, 200), _STACKED, attributes={"group": 5}),
    "3-D": Form(_repeated(4, 1, 1, 5, 5, 5), (4, 9, 8, 7), _EXPAND, attributes={"group": 4}),
}


def message(
    nodes: Sequence[NodeProto],
    sizes: Sequence[int],
    stored: Mapping[str, Array],
    *,
    outputs: Sequence[str] = ("y",),
    ir: int = 8,
    opset: int = 17,
) -> ModelProto:
    """A model of one input ``x``, a batch of two. All numbers have the type of ``w``."""
    kind, unknown = oh.np_dtype_to_tensor_dtype(stored["w"].dtype), [None] * (len(sizes) + 1)
    graph = oh.make_graph(
        nodes,
        "test",
        [oh.make_tensor_value_info("x", kind, [2, *sizes])],
        [oh.make_tensor_value_info(name, kind, unknown) for name in outputs],
        [from_array(array, name) for name, array in stored.items()],
    )
    return oh.make_model(graph, opset_imports=[oh.make_opsetid("", opset)], ir_version=ir)


def convolution(name: str, dtype: str = "float32", *, biased: bool = False, **more: Any) -> ModelProto:
    """A model of one form: the convolution of ``x`` with ``w``, and the bias ``b``."""
    form = FORMS[name]
    stored = {"w": form.weight.astype(dtype)}
    if biased:
        stored["b"] = np.linspace(-1, 1, form.rows).astype(dtype)
    node = oh.make_node(form.op, ["x", *stored], ["y"], name="conv", **form.attributes)
    return message([node], form.sizes, stored, **more)


def stored_once(proto: ModelProto, *, always: bool = True) -> tuple[ModelProto, tuple[str, ...]]:
    """A copy with its kernels stored once, and the ids of the sites whose kernel was stored several times."""
    found = analyse(OnnxModel(Path("model.onnx"), proto, proto.opset_import[0].version))
    after = ModelProto()
    after.CopyFrom(proto)
    return after, store_once(after, repeated_in(found), always=always)


def bits(proto: ModelProto, *, optimized: bool) -> list[bytes]:
    """What onnxruntime computes of random numbers."""
    kind = proto.graph.input[0].type.tensor_type
    x = np.random.default_rng(1).standard_normal([dim.dim_value for dim in kind.shape.dim])
    given = x.astype(oh.tensor_dtype_to_np_dtype(kind.elem_type))
    session = open_session(proto.SerializeToString(), optimized=optimized)
    return [array.tobytes() for array in run(session, [given])]


def operators(proto: ModelProto) -> list[str]:
    return [node.op_type for node in proto.graph.node]


def run_operators(proto: ModelProto, folder: Path) -> Counter[str]:
    """The operators that are left when onnxruntime has optimized a model."""
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.log_severity_level = 3
    ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return Counter(operators(onnx.load(folder / "optimized.onnx")))


def arrays(proto: ModelProto) -> dict[str, Array]:
    """The initializers."""
    return {tensor.name: to_array(tensor) for tensor in proto.graph.initializer}


def weight_of(proto: ModelProto) -> Array:
    """The weight of the convolution, as onnxruntime computes it from what is stored."""
    conv = next(node for node in proto.graph.node if node.op_type.startswith("Conv"))
    nodes = [node for node in proto.graph.node if node.op_type in ("Constant", "Expand", "Where", "Reshape")]
    output = ValueInfoProto(name=conv.input[1])
    graph = oh.make_graph(nodes, "weight", [], [output], list(proto.graph.initializer))
    alone = oh.make_model(graph, opset_imports=proto.opset_import, ir_version=proto.ir_version)
    return run(open_session(alone.SerializeToString(), optimized=False), [])[0]
