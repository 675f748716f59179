"""Small ONNX graphs drawn at random by hypothesis: convolutions, and what an exporter may put around them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx.helper as oh
from drawn_convolutions import Drawn, add_convolution
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto
from onnx.numpy_helper import from_array

from export.runtime.session import Array

OTHERS = ["pad", "pad", "pad", "relu", "identity", "half", "slice", "dead", "computed", "twin", "siblings"]


@st.composite
def drawn_graphs(draw: st.DrawFn, only: str = "") -> Drawn:
    """Graphs that ``onnx.checker`` accepts and onnxruntime runs.

    Args:
        only: "siblings": no size is open. "open": the batch and the sizes of the image are open. In both, a
            shared convolution is there more than once.
    """
    graph = _empty(draw, only)
    for _ in range(draw(st.integers(2, 6))):
        source = draw(st.sampled_from(list(graph.shapes)))
        if draw(st.integers(0, 2)):
            add_convolution(draw, graph, source)
        else:
            _add_other(draw, graph, source, draw(st.sampled_from(OTHERS)))
    if only:
        _add_siblings(draw, graph)
    if draw(st.booleans()):
        graph.store("unused", graph.numbers((2, 1, 3)))
    made = list(graph.shapes)[1:]
    outputs = draw(st.lists(st.sampled_from(made), min_size=1, max_size=3, unique=True)) if made else ["x"]
    floats = [name for name, array in graph.stored.items() if array.dtype == graph.dtype]
    if floats and draw(st.integers(0, 3)) == 0:
        outputs.append(draw(st.sampled_from(floats)))
    graph.proto = _message(graph, outputs)
    return graph


def _empty(draw: st.DrawFn, only: str) -> Drawn:
    """A graph that has only its input so far."""
    dim, seed = draw(st.sampled_from([1, 2, 2])), np.random.default_rng(draw(st.integers(0, 999)))
    dtype = np.dtype(draw(st.sampled_from([np.float32, np.float32, np.float16])))
    external = draw(st.integers(0, 2)) == 0
    graph = Drawn(draw(st.integers(11, 20)), dim, dtype, draw(st.booleans()), external, seed)
    sizes = [draw(st.integers(4, 9)) for _ in range(dim)]
    channels = draw(st.integers(2, 4))
    graph.shapes["x"] = (draw(st.integers(1, 2)), channels, *sizes)
    if only == "open" or (not only and draw(st.integers(0, 2)) == 0):
        for batch, most in ((3, 1), (1, 5)):
            more = (size + draw(st.integers(0, most)) for size in sizes)
            graph.others.append((batch, channels, *more))
    return graph


def _message(graph: Drawn, outputs: list[str]) -> ModelProto:
    kind = oh.np_dtype_to_tensor_dtype(graph.dtype)
    shapes: dict[str, Any] = {**graph.shapes, **{name: array.shape for name, array in graph.stored.items()}}
    if graph.others:
        shapes |= {name: [None] * len(shape) for name, shape in graph.shapes.items()}
        shapes["x"] = ["batch", graph.shapes["x"][1], "height", "width"][: graph.dim + 2]

    def told(name: str) -> Any:
        return oh.make_tensor_value_info(name, kind, shapes[name])

    tensors = [_tensor(name, array) for name, array in graph.stored.items()]
    made = oh.make_graph(graph.nodes, "drawn", [told("x")], [told(name) for name in outputs], tensors)
    return oh.make_model(made, opset_imports=[oh.make_opsetid("", graph.opset)], ir_version=10)


def _tensor(name: str, array: Array) -> TensorProto:
    """An initializer. One of integers never goes to another file: onnxruntime needs it when it loads."""
    if array.dtype.kind == "i":
        return oh.make_tensor(name, TensorProto.INT64, array.shape, array.flatten().tolist())
    return from_array(array, name)


def _add_other(draw: st.DrawFn, graph: Drawn, source: str, what: str) -> None:
    """An operator that is no convolution."""
    shape = graph.shapes[source]
    if what == "pad":
        _add_pad(draw, graph, source)
    elif what == "slice" and shape[-1] > 3:
        bounds = [graph.store("cut", np.array([number])) for number in (1, shape[-1] - 1, len(shape) - 1)]
        graph.add("Slice", [source, *bounds], (*shape[:-1], shape[-1] - 2))
    elif what == "half":
        factor = graph.store("factor", np.array(0.5, dtype=graph.dtype))
        graph.add("Mul", [source, factor], shape)
    elif what == "twin":
        if graph.kinds:
            name = draw(st.sampled_from(list(graph.kinds)))
            _add_twin(draw, graph, name, _sources(graph, name))
    elif what == "siblings":
        _add_siblings(draw, graph)
    elif what == "computed":  # a weight of more than one reader, one of which is no convolution
        if graph.weights:
            graph.add("Neg", [draw(st.sampled_from(list(graph.weights)))], None)
    else:
        op = "Identity" if what == "identity" else "Relu"
        graph.add(op, [source], None if what == "dead" else shape)


def _add_twin(draw: st.DrawFn, graph: Drawn, name: str, sources: list[str]) -> str:
    """The convolution that computes ``name`` once more, on one of ``sources``."""
    twin = next(node for node in graph.nodes if node.output[0] == name)
    more = {one.name: oh.get_attribute_value(one) for one in twin.attribute}
    inputs = [draw(st.sampled_from(sources)), *twin.input[1:]]
    made = graph.add(twin.op_type, inputs, graph.shapes[name], **more)
    graph.kinds[made] = graph.kinds[name]
    return made


def _sources(graph: Drawn, name: str) -> list[str]:
    """The values of the shape that the convolution of ``name`` reads."""
    twin = next(node for node in graph.nodes if node.output[0] == name)
    shape = graph.shapes[twin.input[0]]
    return [other for other, found in graph.shapes.items() if found == shape]


def _add_siblings(draw: st.DrawFn, graph: Drawn) -> None:
    """A shared convolution once or twice more; then what they compute is added up, joined or left."""
    shared = [name for name, kind in graph.kinds.items() if kind == "shared"]
    if not shared:
        return
    name = draw(st.sampled_from(shared))
    shape, sources = graph.shapes[name], _sources(graph, name)
    if graph.others:  # other values may differ from it in shape at other sizes
        sources = [next(node for node in graph.nodes if node.output[0] == name).input[0]]
    twins = [name, *(_add_twin(draw, graph, name, sources) for _ in range(draw(st.integers(1, 2))))]
    axis = draw(st.sampled_from([None, None, 0, 1, 2, -1]))
    if axis == -1:
        graph.add("Sum", twins, shape)
    elif axis is not None:
        joined = [size * (len(twins) if place == axis else 1) for place, size in enumerate(shape)]
        graph.add("Concat", twins, tuple(joined), axis=axis)


def _add_pad(draw: st.DrawFn, graph: Drawn, source: str) -> None:
    """A Pad, with its optional inputs left out, empty or given."""
    shape, dim = graph.shapes[source], graph.dim
    front, back = ([draw(st.integers(0, 2)) for _ in range(dim)] for _ in range(2))
    mode = draw(st.sampled_from(["constant", "constant", "constant", "edge", "reflect"]))
    if mode == "reflect" and min(shape[2:]) < 3:
        mode = "edge"
    zero = draw(st.sampled_from(["left out", "empty", "given"])) if mode == "constant" else "left out"
    value = {"left out": [], "empty": [""], "given": ["zero"]}[zero]
    if zero == "given":
        graph.stored["zero"] = np.zeros((), dtype=graph.dtype)
    pads, axes = [0, 0, *front, 0, 0, *back], list[str]()
    if graph.opset >= 18 and draw(st.booleans()):
        pads, axes = [*front, *back], [graph.store("axes", np.arange(2, dim + 2))]
    inputs = [source, graph.store("pads", np.array(pads)), *(value or [""] * len(axes)), *axes]
    sizes = (a + size + b for a, size, b in zip(front, shape[2:], back, strict=True))
    graph.add("Pad", inputs, (*shape[:2], *sizes), mode=mode)
