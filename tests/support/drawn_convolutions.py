"""A small ONNX graph that is being drawn, and the convolutions in it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx.helper as oh
from hypothesis import strategies as st
from onnx import ModelProto, NodeProto
from onnx.numpy_helper import from_array

from export.runtime.session import Array

Shape = tuple[int, ...]
# How the groups of a convolution differ: not at all; in one tap of one group; in its last bit; everywhere.
KINDS = ["shared", "shared", "shared", "tap", "ulp", "unshared"]


@dataclass
class Drawn:
    """A graph.

    Args:
        dtype: of all its numbers, but for sizes and bounds.
        integers: every number in it is a small integer or a half of one: sums are exact.
        external: its weights are in a file of their own.
        others: more sizes of the input, none below the drawn ones. Without them, no size is open.
        shapes: of each value that later nodes may read.
        kinds: for each convolution, by the value that it computes: one of ``KINDS``.
        weights: the weights of convolutions, each with the form of the convolution that it is for.
    """

    opset: int
    dim: int
    dtype: np.dtype
    integers: bool
    external: bool
    seed: np.random.Generator
    others: list[Shape] = field(default_factory=list)
    shapes: dict[str, Shape] = field(default_factory=dict)
    nodes: list[NodeProto] = field(default_factory=list)
    stored: dict[str, Array] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    weights: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    proto: ModelProto = field(default_factory=ModelProto)

    def inputs(self) -> list[Array]:
        """Examples of the input: at its drawn size first, then at the others."""
        return [self.numbers(shape) for shape in (self.shapes["x"], *self.others)]

    def numbers(self, shape: Shape) -> Array:
        """Numbers of the kind that the graph has. Those of few bits are small, as a few convolutions make
        them a thousand times larger."""
        small = self.dtype.itemsize < 4
        if self.integers:
            return self.seed.integers(-1 if small else -3, 2 if small else 4, shape).astype(self.dtype)
        return np.asarray(self.seed.normal(size=shape) * (0.5 if small else 1.0), dtype=self.dtype)

    @property
    def refused(self) -> set[str]:
        """The transposed convolutions of open sizes whose sides are cut differently: torch has no such
        form."""
        found = set()
        for node in self.nodes if self.others else ():
            more = {one.name: oh.get_attribute_value(one) for one in node.attribute}
            extra = more.get("output_padding", [0] * self.dim)
            for axis, stride in enumerate(more["strides"] if node.op_type == "ConvTranspose" else ()):
                front, back = more["pads"][axis], more["pads"][axis + self.dim]
                if not 0 <= front + extra[axis] - back < stride:
                    found.add(node.output[0])
        return found

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


def add_convolution(draw: st.DrawFn, graph: Drawn, source: str) -> None:
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
        kernels[place] = np.nextafter(kernels[place], graph.dtype.type(np.inf))
        graph.integers = False
    weight = kernels.reshape(channels * rows, 1, *taps)
    if dense:
        blocks = np.zeros((channels, rows, channels, *taps), dtype=graph.dtype)
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
