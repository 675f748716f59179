"""Small ONNX graphs drawn at random by hypothesis: convolutions, and what an exporter may put around them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx.helper as oh
from hypothesis import strategies as st
from onnx import ModelProto, NodeProto, TensorProto
from onnx.numpy_helper import from_array

from export.runtime.session import Array

Shape = tuple[int, ...]
# How the groups of a convolution differ: not at all; in one tap of one group; in its last bit; everywhere.
KINDS = ["shared", "shared", "shared", "tap", "ulp", "unshared"]
OTHERS = ["pad", "pad", "pad", "relu", "identity", "half", "slice", "dead", "computed", "twin", "twin"]


@dataclass
class Drawn:
    """A graph.

    Args:
        integers: every number in it is a small integer or a half of one: sums are exact.
        shapes: of each value that later nodes may read.
        kinds: for each convolution, by the value that it computes: one of ``KINDS``.
        weights: the weights of convolutions, each with the form of the convolution that it is for.
    """

    opset: int
    dim: int
    integers: bool
    seed: np.random.Generator
    shapes: dict[str, Shape] = field(default_factory=dict)
    nodes: list[NodeProto] = field(default_factory=list)
    stored: dict[str, Array] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    weights: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    proto: ModelProto = field(default_factory=ModelProto)

    @property
    def x(self) -> Array:
        """An example of the input."""
        return self.numbers(self.shapes["x"])

    def numbers(self, shape: Shape) -> Array:
        """Numbers of the kind that the graph has."""
        drawn = self.seed.integers(-3, 4, shape) if self.integers else self.seed.normal(size=shape)
        return np.asarray(drawn, dtype=np.float32)

    def store(self, what: str, array: Array) -> str:
        name = f"{what}{len(self.stored)}"
        self.stored[name] = array
        return name

    def add(self, op: str, inputs: list[str], shape: Shape | None, **more: Any) -> str:
        """Add a node. Without a shape, no later node reads what it computes."""
        name = f"v{len(self.nodes)}"
        self.nodes.append(oh.make_node(op, inputs, [name], name=f"n{name}", **more))
        if shape is not None:
            self.shapes[name] = shape
        return name


@st.composite
def drawn_graphs(draw: st.DrawFn) -> Drawn:
    """Graphs that ``onnx.checker`` accepts and onnxruntime runs."""
    dim, seed = draw(st.sampled_from([1, 2, 2])), np.random.default_rng(draw(st.integers(0, 999)))
    graph = Drawn(draw(st.integers(11, 20)), dim, draw(st.booleans()), seed)
    sizes = (draw(st.integers(4, 9)) for _ in range(dim))
    graph.shapes["x"] = (draw(st.integers(1, 2)), draw(st.integers(2, 4)), *sizes)
    for _ in range(draw(st.integers(2, 6))):
        source = draw(st.sampled_from(list(graph.shapes)))
        if draw(st.integers(0, 2)):
            _add_convolution(draw, graph, source)
        else:
            _add_other(draw, graph, source, draw(st.sampled_from(OTHERS)))
    if draw(st.booleans()):
        graph.store("unused", graph.numbers((2, 1, 3)))
    made = list(graph.shapes)[1:]
    outputs = draw(st.lists(st.sampled_from(made), min_size=1, max_size=3, unique=True)) if made else ["x"]
    floats = [name for name, array in graph.stored.items() if array.dtype == np.float32]
    if floats and draw(st.integers(0, 3)) == 0:
        outputs.append(draw(st.sampled_from(floats)))
    graph.proto = _message(graph, outputs)
    return graph


def _message(graph: Drawn, outputs: list[str]) -> ModelProto:
    shapes = {**graph.shapes, **{name: array.shape for name, array in graph.stored.items()}}

    def told(name: str) -> Any:
        return oh.make_tensor_value_info(name, TensorProto.FLOAT, shapes[name])

    tensors = [from_array(array, name) for name, array in graph.stored.items()]
    made = oh.make_graph(graph.nodes, "drawn", [told("x")], [told(name) for name in outputs], tensors)
    return oh.make_model(made, opset_imports=[oh.make_opsetid("", graph.opset)], ir_version=10)


def _add_other(draw: st.DrawFn, graph: Drawn, source: str, what: str) -> None:
    """An operator that is no convolution."""
    shape = graph.shapes[source]
    if what == "pad":
        _add_pad(draw, graph, source)
    elif what == "slice" and shape[-1] > 3:
        bounds = [graph.store("cut", np.array([number])) for number in (1, shape[-1] - 1, len(shape) - 1)]
        graph.add("Slice", [source, *bounds], (*shape[:-1], shape[-1] - 2))
    elif what == "half":
        factor = graph.store("factor", np.array(0.5, dtype=np.float32))
        graph.add("Mul", [source, factor], shape)
    elif what == "twin":
        _add_twin(draw, graph)
    elif what == "computed":  # a weight of more than one reader, one of which is no convolution
        if graph.weights:
            graph.add("Neg", [draw(st.sampled_from(list(graph.weights)))], None)
    else:
        op = "Identity" if what == "identity" else "Relu"
        graph.add(op, [source], None if what == "dead" else shape)


def _add_twin(draw: st.DrawFn, graph: Drawn) -> None:
    """A convolution that is there once more, on a value of the same shape."""
    if graph.kinds:
        name = draw(st.sampled_from(list(graph.kinds)))
        twin = next(node for node in graph.nodes if node.output[0] == name)
        shape = graph.shapes[twin.input[0]]
        source = draw(st.sampled_from([other for other, found in graph.shapes.items() if found == shape]))
        more = {one.name: oh.get_attribute_value(one) for one in twin.attribute}
        made = graph.add(twin.op_type, [source, *twin.input[1:]], graph.shapes[name], **more)
        graph.kinds[made] = graph.kinds[name]


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
        graph.stored["zero"] = np.zeros((), dtype=np.float32)
    pads, axes = [0, 0, *front, 0, 0, *back], list[str]()
    if graph.opset >= 18 and draw(st.booleans()):
        pads, axes = [*front, *back], [graph.store("axes", np.arange(2, dim + 2))]
    inputs = [source, graph.store("pads", np.array(pads)), *(value or [""] * len(axes)), *axes]
    sizes = (a + size + b for a, size, b in zip(front, shape[2:], back, strict=True))
    graph.add("Pad", inputs, (*shape[:2], *sizes), mode=mode)


def _add_convolution(draw: st.DrawFn, graph: Drawn, source: str) -> None:
    """A Conv or a ConvTranspose with one group for each channel, if the image is large enough for it."""
    shape, axes = graph.shapes[source], range(graph.dim)
    op = draw(st.sampled_from(["Conv", "Conv", "ConvTranspose"]))
    taps, strides, dilations = (
        tuple(draw(st.sampled_from(some)) for _ in axes)
        for some in ([1, 2, 3, 3, 4], [1, 1, 2, 3], [1, 1, 2])
    )
    pads = tuple(draw(st.integers(0, 2)) for _ in range(2 * graph.dim))
    extra = tuple(draw(st.integers(0, stride - 1)) for stride in strides)
    sizes = []
    for axis, size in enumerate(shape[2:]):
        span, padded = dilations[axis] * (taps[axis] - 1) + 1, pads[axis] + pads[axis + graph.dim]
        if op == "Conv":
            sizes.append((size + padded - span) // strides[axis] + 1 if size + padded >= span else 0)
        else:
            sizes.append((size - 1) * strides[axis] + extra[axis] + span - padded)
    rows = draw(st.sampled_from([1, 1, 2])) if shape[1] <= 4 else 1
    if min(sizes) < 1 or max(sizes) > 30:
        return
    weight, kind, groups = _weight(draw, graph, (op, shape[1], rows, taps))
    bias = _bias(draw, graph, shape[1] * rows)
    more = {"output_padding": extra} if op == "ConvTranspose" and any(extra) else {}
    name = graph.add(
        op,
        [source, weight, *bias],
        (shape[0], shape[1] * rows, *sizes),
        **{"group": groups, "strides": strides, "dilations": dilations, "pads": pads, **more},
    )
    graph.kinds[name] = kind


def _weight(draw: st.DrawFn, graph: Drawn, form: tuple[Any, ...]) -> tuple[str, str, int]:
    """A weight, its kind, and how many groups the convolution has. Often a weight that is there is taken."""
    there = [name for name, (other, *_) in graph.weights.items() if other == form]
    again: bool = draw(st.booleans())
    if there and again:
        name: str = draw(st.sampled_from(there))
        return name, *graph.weights[name][1:]
    op, channels, rows, taps = form
    kind: str = draw(st.sampled_from(KINDS))
    dense = draw(st.integers(0, 4)) == 0
    kernels = np.stack([graph.numbers((rows, *taps))] * channels)
    place: Any = tuple(draw(st.integers(0, size - 1)) for size in kernels.shape)
    if kind == "unshared":
        kernels = graph.numbers(kernels.shape)
        kernels[0].flat[0] = kernels[1].flat[0] + 1
    elif kind == "tap":
        kernels[place] += 1
    elif kind == "ulp":
        kernels[:, *place[1:]] = 1
        kernels[place] = np.nextafter(kernels[place], np.float32(np.inf))
        graph.integers = False
    weight = kernels.reshape(channels * rows, 1, *taps)
    if dense:
        blocks = np.zeros((channels, rows, channels, *taps), dtype=np.float32)
        blocks[np.arange(channels), :, np.arange(channels)] = kernels
        weight = blocks.reshape(channels * rows, channels, *taps)
    if op == "ConvTranspose":
        weight = np.ascontiguousarray(weight.swapaxes(0, 1)) if dense else kernels
    name = _put(draw, graph, weight)
    groups = 1 if dense else channels
    graph.weights[name] = form, kind, groups
    return name, kind, groups


def _put(draw: st.DrawFn, graph: Drawn, weight: Array) -> str:
    """A constant as an initializer, as a node, or as what a node computes."""
    how = draw(st.sampled_from(["stored", "stored", "stored", "node", "computed"]))
    if how == "node":
        return graph.add("Constant", [], None, value=from_array(weight))
    name = graph.store("w", weight)
    return graph.add("Identity", [name], None) if how == "computed" else name


def _bias(draw: st.DrawFn, graph: Drawn, channels: int) -> list[str]:
    how = draw(st.sampled_from(["none", "empty", "own", "same"]))
    if how in ("none", "empty"):
        return [""] if how == "empty" else []
    there = [name for name, array in graph.stored.items() if name[0] == "b" and array.size == channels]
    if how == "same" and there:
        return [there[0]]
    return [graph.store("b", graph.numbers((channels,)))]
