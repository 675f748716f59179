"""An ONNX graph as an FX graph, in which convolutions are found and chosen for as in one from torch.

Convolutions that may share a kernel, and the operators that move data, become ATen calls. Every other node is
one opaque operator, which is never run. A weight that is constant becomes a buffer, one for each convolution.
A node of the FX graph keeps the name of its ONNX value in ``meta[VALUE]``.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from onnx import NodeProto
from torch.fx import Graph, GraphModule, Node

from export.read_onnx.candidates import Candidate, Convolutions, refusal, tensor_of
from export.read_onnx.constants import Constants
from export.read_onnx.convolution import convolution_of
from export.read_onnx.model import OnnxModel, read_by
from export.read_onnx.movement import MOVEMENTS, Call, Context, calls_of, data_input
from export.read_onnx.shape_values import add_shapes
from export.read_onnx.sizes import OPAQUE, FakeValues, open_size
from export.read_onnx.types import ValueType, value_types
from fx_passes.find.find_kernels import SITE_ID
from fx_passes.records import Finding
from fx_passes.resample.absorb import WITHIN
from fx_passes.resample.outside import KIND

# In ``meta`` of an FX node: the name of the ONNX value that it stands for.
VALUE = "onnx_value"
_aten = torch.ops.aten


@dataclass(frozen=True)
class Mirror:
    """An FX graph of the main graph of a model.

    Args:
        graph_module: it can be searched and rewritten, not run.
        refused: the convolutions in groups that it does not show, each with the reason.
        convolutions: the convolutions that it shows, by the ids of their sites.
    """

    graph_module: GraphModule
    refused: tuple[Finding, ...]
    convolutions: Mapping[str, Candidate]


def mirror(model: OnnxModel, *, trusted: bool = True, least: Mapping[str, int] | None = None) -> Mirror:
    """The FX graph of ``model``.

    Args:
        trusted: whether the shapes that the file states are taken.
        least: the smallest values of open sizes of its inputs, by name.

    Raises:
        LoadError: weights that lie in another file cannot be read.
    """
    constants = Constants(model)
    convolutions = Convolutions(constants)
    wanted = convolutions.wanted_types()
    types = value_types(model, wanted, trusted=trusted) if wanted else {}
    add_shapes(constants, types)
    found, refused = convolutions.candidates()
    for one in found.values():  # of these, the rank is known in any case
        sizes = (None,) * one.weight.ndim
        for name in (one.node.input[0], one.node.output[0]):
            types.setdefault(name, ValueType(one.weight.dtype, sizes))
    builder = _Builder(model, constants, FakeValues(types, model.inputs, least), found)
    builder.build()
    return Mirror(builder.finish(), (*builder.refused, *refused), {one.id: one for one in found.values()})


class _Builder:
    """Adds one ONNX node after the other to an FX graph."""

    def __init__(
        self,
        model: OnnxModel,
        constants: Constants,
        fakes: FakeValues,
        candidates: Mapping[str, Candidate],
    ) -> None:
        self.model, self.fakes, self.candidates = model, fakes, candidates
        self.context = Context(constants, fakes.types, fakes.shape)
        self.graph, self.root = Graph(), torch.nn.Module()
        self.values: dict[str, Node] = {}
        self.refused: list[Finding] = []

    def build(self) -> None:
        for value in self.model.graph.input:
            self._name(self.graph.placeholder(_fx_name(value.name)), value.name)
        if self.candidates:
            self._load_constants()
        for node in self.model.graph.node:
            self._add(node)
        # An output that is a constant has no node.
        self.graph.output(tuple(self.values.get(value.name) for value in self.model.graph.output))

    def finish(self) -> GraphModule:
        """The graph module. What nothing reads stays in the graph: it is in the file."""
        return GraphModule(self.root, self.graph)

    def _load_constants(self) -> None:
        """Compute the parameters of all data movements and the weights of all candidates at once."""
        names = [n for node in self.model.graph.node if node.op_type in MOVEMENTS for n in node.input]
        self.context.constants.load(names)

    def _add(self, node: NodeProto) -> None:
        given = [name for name in dict.fromkeys(read_by(node)) if name in self.values]
        if all(name in self.context.constants for name in node.output if name):
            return  # also a shape that is known, although its node reads a value
        if node.output and node.output[0] in self.candidates:
            self._convolution(node, self.candidates[node.output[0]])
            return
        if self.model.is_standard(node) and (source := data_input(node, self.context.constants)) in given:
            calls = calls_of(node, self.context)
            if calls is not None:
                self._chain(self.values[str(source)], calls, node.output[0])
                return
        self._opaque(node.op_type, given, [name for name in node.output if name])

    def _opaque(self, op: str, given: Sequence[str], made: Sequence[str]) -> None:
        all_ = self.graph.call_function(OPAQUE, ([self.values[name] for name in given], op))
        all_.meta[KIND] = op
        for place, name in enumerate(made):
            self._name(self.graph.call_function(operator.getitem, (all_, place)), name)

    def _chain(self, source: Node, calls: Sequence[Call], result: str) -> Node:
        """``calls``, each on the result of the one before; the last one is ``result``."""
        node = source
        for place, (op, arguments) in enumerate(calls):
            node = self.graph.call_function(op, (node, *self._sized(arguments)))
            if place < len(calls) - 1:
                self.fakes.give(node, None)
                node.meta[WITHIN] = True
        if node is not source:
            self._name(node, result)
        return node

    def _sized(self, arguments: Any) -> Any:
        """Arguments in which each open size is a node."""
        if isinstance(arguments, list | tuple):
            return type(arguments)(map(self._sized, arguments))
        if not isinstance(arguments, torch.SymInt):
            return arguments
        size = self.graph.call_function(open_size, (str(arguments),))
        size.meta["val"] = arguments
        return size

    def _convolution(self, node: NodeProto, candidate: Candidate) -> None:
        shape = tuple(candidate.weight.shape)
        kind = self.context.types.get(node.input[0])
        form = convolution_of(node, shape, None if kind is None else kind.shape)
        if form is None:
            said = "its padding depends on sizes that are open, or has no form in torch"
            self.refused.append(refusal(candidate.id, node, "padding", said))
            self._opaque(node.op_type, [n for n in node.input if n in self.values], node.output)
            return
        before = self._value(node.input[0])
        if form.front:
            before = self.graph.call_function(_aten.constant_pad_nd.default, (before, list(form.front), 0.0))
            self.fakes.give(before, None)
            before.meta[WITHIN] = True
        weight = self._parameter(candidate, node.input[1], "weight")
        bias = None
        if len(node.input) > 2 and node.input[2]:
            bias = self._parameter(candidate, node.input[2], "bias")
        conv = self.graph.call_function(form.op, (before, weight, bias, *form.arguments))
        conv.meta[SITE_ID] = candidate.id
        if not form.back:
            self._name(conv, node.output[0])
            return
        self.fakes.give(conv, None)
        conv.meta[WITHIN] = True
        cuts = [(_aten.slice.Tensor, cut) for cut in form.back]
        self._chain(conv, cuts, node.output[0])

    def _parameter(self, candidate: Candidate, name: str, role: str) -> Node:
        """A weight or bias: a buffer of its own for each convolution if it is constant."""
        if name in self.values:
            return self.values[name]
        if role == "weight":
            tensor = candidate.weight
        elif (array := self.context.constants.get(name)) is not None:
            tensor = tensor_of(array)
        else:
            return self._value(name)
        target = f"{_fx_name(candidate.id)}_{role}"
        while hasattr(self.root, target):
            target += "_"
        self.root.register_buffer(target, tensor)
        node = self.graph.get_attr(target)
        node.meta["val"] = tensor
        return node

    def _value(self, name: str) -> Node:
        """The node of a value. A constant that is no buffer is shown as a value of which nothing is known."""
        if name not in self.values:
            self._opaque("Constant", [], [name])
        return self.values[name]

    def _name(self, node: Node, value: str) -> None:
        node.meta[VALUE] = value
        self.fakes.give(node, value)
        self.values[value] = node


def _fx_name(name: str) -> str:
    return re.sub(r"\W", "_", name) or "value"
