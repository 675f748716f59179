"""Stores the kernel that a convolution repeats once, and expands it: the same bits, in less space.

Before:  Conv(x, weight (G*r, c, *k), bias)
After:   Add(Conv(x, Reshape(Expand(kernel (1, r, c, *k)))), bias (G*r, 1, ...))

onnxruntime computes the Expand when a session starts, so it costs nothing at run time. A block-diagonal
weight is ``Where(diagonal, kernel, 0)``. In float16 it stays as it is: onnxruntime has no such Where, and
would compute the weight in each run.

The bias moves behind the convolution: tools for quantization take a convolution with a bias only if its
weight is an initializer. onnxruntime joins both again. The bits are the same, as a bias is added when the sum
is complete. That is true in float32, the type that is quantized; convolutions in float16 keep their bias.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from onnx import ModelProto, NodeProto, TensorProto

from export.read_onnx.model import read_by, stores_constants
from export.read_onnx.sites import Analysis
from export.write_onnx.put_nodes import put_nodes
from export.write_onnx.surgery import PREFIX, Names
from fx_passes.find.verdict import CutTensor
from fx_passes.records import SharedKernel


@dataclass(frozen=True)
class Repeated:
    """A convolution whose weight repeats one kernel.

    Args:
        id: its site.
        output: the value that the convolution computes.
        kernel: how the weight repeats the kernel.
        values: the numbers of the kernel, in the shape of ``kernel``.
    """

    id: str
    output: str
    kernel: SharedKernel
    values: np.ndarray


def repeated_in(found: Analysis, lowered: Collection[str] = ()) -> list[Repeated]:
    """The convolutions of a file in which two or more groups repeat one kernel, bit for bit.

    Args:
        lowered: the ids of sites that are computed in another way; they are left out.
    """
    repeated = []
    for verdict in found.verdicts:
        kernel, action = verdict.finding.kernel, verdict.action
        if verdict.finding.id in lowered or kernel is None or kernel.groups == 1:
            continue
        if isinstance(action, CutTensor) and action.kernel.dtype != torch.bfloat16:  # numpy does not have it
            output = found.convolutions[verdict.finding.id].node.output[0]
            repeated.append(Repeated(verdict.finding.id, output, kernel, action.kernel.numpy()))
    return repeated


def store_once(proto: ModelProto, repeated: Sequence[Repeated], *, always: bool) -> tuple[str, ...]:
    """Replace repeated weights by expanded kernels, in place.

    Args:
        proto: a model that nobody else reads.
        repeated: convolutions of it.
        always: also where the file does not become smaller.

    Returns:
        The ids of the sites whose kernel was stored several times, and is now stored once.
    """
    convolutions = {name: node for node in proto.graph.node for name in node.output}
    stored = {tensor.name: tensor for tensor in proto.graph.initializer}
    by_weight: dict[str, list[Repeated]] = {}
    for one in repeated:
        weight = convolutions[one.output].input[1]
        if weight in stored and not (one.kernel.block_diagonal and one.values.dtype == np.float16):
            by_weight.setdefault(weight, []).append(one)
    names = Names(proto.graph)
    biases: dict[tuple[str, int], str] = {}
    done: list[str] = []
    changed: dict[int, list[NodeProto]] = {}
    for weight, sites in by_weight.items():
        made = _expansion(weight, sites[0], stored[weight], names, constants=stores_constants(proto))
        if not always and not _is_smaller(made, stored[weight], len(sites), proto):
            continue
        proto.graph.initializer.extend(made.constants)
        for place, site in enumerate(sites):
            node = convolutions[site.output]
            changed[id(node)] = [
                *(made.nodes if place == 0 else []),
                *_with_weight(node, made.weight, site.id, proto, names, biases),
            ]
            done.append(site.id)
    if changed:
        nodes = [new for node in proto.graph.node for new in changed.get(id(node), [node])]
        put_nodes(proto.graph, nodes, [node for node in proto.graph.node if id(node) in changed])
    return tuple(done)


def _is_smaller(made: _Expansion, weight: TensorProto, sites: int, proto: ModelProto) -> bool:
    """Whether the weight can go, and is larger than what takes its place. One in another file stays there."""
    readers = sum(list(read_by(node)).count(weight.name) for node in proto.graph.node)
    outputs = [value.name for value in proto.graph.output]
    alone = readers == sites and weight.name not in outputs and not weight.external_data
    return alone and made.bytes < weight.ByteSize()


@dataclass(frozen=True)
class _Expansion:
    """Nodes and constants that make a weight."""

    weight: str
    nodes: list[NodeProto]
    constants: list[TensorProto]

    @property
    def bytes(self) -> int:
        return sum(n.ByteSize() for n in self.nodes) + sum(c.ByteSize() for c in self.constants)


class _Maker:
    """Collects nodes and constants of an expansion."""

    def __init__(self, prefix: str, names: Names, constants: bool) -> None:
        self.prefix, self.names, self.as_initializers = prefix, names, constants
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []

    def constant(self, what: str, array: np.ndarray) -> str:
        name = self.names.free(f"{self.prefix}/{what}" if what else self.prefix)
        tensor = onnx.numpy_helper.from_array(np.ascontiguousarray(array), name)
        if self.as_initializers:
            self.constants.append(tensor)
        else:
            self.nodes.append(onnx.helper.make_node("Constant", [], [name], name=name, value=tensor))
        return name

    def node(self, op: str, inputs: Sequence[str], what: str) -> str:
        name = self.names.free(f"{self.prefix}/{what}")
        self.nodes.append(onnx.helper.make_node(op, inputs, [name], name=self.names.node(name)))
        return name


def _expansion(
    weight: str, site: Repeated, tensor: TensorProto, names: Names, *, constants: bool
) -> _Expansion:
    kernel, maker = site.kernel, _Maker(PREFIX + weight, names, constants)
    rows, *rest = kernel.shape
    groups = kernel.groups
    whole = np.array(tensor.dims, dtype=np.int64)
    if kernel.block_diagonal:
        columns, taps = rest[0], rest[1:]
        ones = [1] * len(taps)
        source = maker.constant("", site.values.reshape(1, rows, 1, columns, *taps))
        diagonal = maker.constant("diagonal", np.eye(groups, dtype=bool).reshape(groups, 1, groups, 1, *ones))
        zero = maker.constant("zero", np.zeros((), dtype=site.values.dtype))
        value = maker.node("Where", [diagonal, source, zero], "blocks")
    else:
        lead = (1,) if rows == 1 else (1, rows)
        source = maker.constant("", site.values.reshape(*lead, *rest))
        sizes = maker.constant("sizes", np.array([groups, *lead[1:], *rest], dtype=np.int64))
        value = maker.node("Expand", [source, sizes], "expanded")
        if rows == 1:
            return _Expansion(value, maker.nodes, maker.constants)
    value = maker.node("Reshape", [value, maker.constant("shape", whole)], "weight")
    return _Expansion(value, maker.nodes, maker.constants)


def _with_weight(
    conv: NodeProto,
    weight: str,
    site: str,
    proto: ModelProto,
    names: Names,
    biases: dict[tuple[str, int], str],
) -> list[NodeProto]:
    """The convolution with another weight, and its constant bias behind it if it can stand there. New names
    are those of ``site``."""
    changed = NodeProto()
    changed.CopyFrom(conv)
    changed.input[1] = weight
    bias = _bias_behind(conv, proto, names, biases)
    if bias is None:
        return [changed]
    del changed.input[2:]
    changed.output[0] = names.free(f"{PREFIX}{site}/without_bias")
    name = names.node(f"{PREFIX}{site}/bias")
    return [changed, onnx.helper.make_node("Add", [changed.output[0], bias], [conv.output[0]], name=name)]


def _bias_behind(
    conv: NodeProto, proto: ModelProto, names: Names, biases: dict[tuple[str, int], str]
) -> str | None:
    """The bias of a Conv in float32 as an initializer (C, 1, ...); None if it stays where it is.

    Args:
        biases: those that were made so far, by their bias and their dimensions.
    """
    # A ConvTranspose is not quantized, and onnxruntime would not join it again.
    if conv.op_type != "Conv" or len(conv.input) < 3 or not conv.input[2] or not stores_constants(proto):
        return None
    bias = next((t for t in proto.graph.initializer if t.name == conv.input[2]), None)
    if bias is None or bias.data_type != TensorProto.FLOAT or bias.external_data:
        return None
    if bias.name in {value.name for value in proto.graph.input}:
        return None
    dims = next((len(t.dims) for t in proto.graph.initializer if t.name == conv.input[1]), 0)
    if (bias.name, dims) not in biases:
        wide = TensorProto()
        wide.CopyFrom(bias)
        wide.name = biases[bias.name, dims] = names.free(f"{PREFIX}{bias.name}/{dims - 2}d")
        wide.dims.extend([1] * (dims - 2))
        proto.graph.initializer.append(wide)
    return biases[bias.name, dims]
