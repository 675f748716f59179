"""ONNX graphs of a few nodes in memory, as the package ``read_onnx`` takes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.helper as oh
from onnx import FunctionProto, NodeProto, ValueInfoProto

from export.read_onnx.model import OnnxModel
from export.runtime.session import Array, open_session, run

# Every runtime that the project supports reads this version of the format.
IR_VERSION = 10


def model_of(
    nodes: Sequence[NodeProto],
    inputs: Mapping[str, Array | tuple[int, Sequence[int | str | None] | None]],
    stored: Mapping[str, Array] | None = None,
    *,
    outputs: Sequence[str] = ("y",),
    opset: int = 20,
    domains: Sequence[str] = (),
    functions: Sequence[FunctionProto] = (),
    path: Path = Path("model.onnx"),
) -> OnnxModel:
    """A model of the given nodes. It is not checked, and not written.

    Args:
        inputs: by name: an example, or the element type and the sizes.
        stored: the initializers.
        outputs: their names; the file says nothing else of them.
        domains: what is imported besides the standard operators.
        functions: operators that the model defines.
    """
    graph = oh.make_graph(
        nodes,
        "test",
        [_input(name, value) for name, value in inputs.items()],
        [ValueInfoProto(name=name) for name in outputs],
        [onnx.numpy_helper.from_array(array, name) for name, array in (stored or {}).items()],
    )
    imports = [oh.make_opsetid("", opset), *(oh.make_opsetid(domain, 1) for domain in domains)]
    proto = oh.make_model(graph, opset_imports=imports, ir_version=IR_VERSION, functions=functions)
    return OnnxModel(path, proto, opset)


def _input(name: str, value: Any) -> ValueInfoProto:
    if isinstance(value, np.ndarray):
        value = oh.np_dtype_to_tensor_dtype(value.dtype), value.shape
    return oh.make_tensor_value_info(name, *value)


def computed(model: OnnxModel, *arrays: Array, optimized: bool = False) -> list[Array]:
    """What onnxruntime computes."""
    return run(open_session(model.proto.SerializeToString(), optimized=optimized), arrays)


def small_integers(*shape: int, seed: int = 0) -> Array:
    """Float32 numbers of which sums and products are exact."""
    return np.random.default_rng(seed).integers(-3, 4, shape).astype(np.float32)
