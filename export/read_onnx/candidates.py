"""The convolutions of a model that may share a kernel among their groups."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from onnx import GraphProto, NodeProto
from torch import Tensor

from export.read_onnx.constants import Constants
from export.read_onnx.model import OnnxModel, attribute, bodies
from export.runtime.session import Array
from fx_passes.find.judge import is_bank
from fx_passes.kernels.block_diagonal import find_diagonal_blocks
from fx_passes.records import ConvGeometry, ConvSite, Finding, Refusal, WeightOrigin

_CONVOLUTIONS = ("Conv", "ConvTranspose")
# Convolutions in integers, or joined with what follows.
_OTHERS = ("ConvInteger", "QLinearConv", "FusedConv", "NhwcFusedConv", "NhwcConv", "QLinearConvTranspose")
_SCOPES = "pkg.torch.onnx.name_scopes"


@dataclass(frozen=True)
class Candidate:
    """A convolution that may share a kernel.

    Args:
        id: unique in the model.
        node: the node.
        weight: its numbers.
        weight_name: the name of the initializer that they are made of.
        stored: how many numbers that initializer has.
    """

    id: str
    node: NodeProto
    weight: Tensor
    weight_name: str | None
    stored: int = 0


class Convolutions:
    """The convolutions of the main graph.

    Args:
        constants: the constants of the model; more of them may become known.
    """

    def __init__(self, constants: Constants) -> None:
        self.model, self.constants = constants.model, constants
        self.nodes = [
            n for n in self.model.graph.node if n.op_type in _CONVOLUTIONS and self.model.is_standard(n)
        ]
        self._repeating: dict[str, bool] = {}

    def wanted_types(self) -> list[str]:
        """The values whose shapes have to be known: none if no convolution may be a candidate."""
        if not any(map(self._may_be_candidate, self.nodes)):
            return []
        read = [node.input[0] for node in self.model.graph.node if node.op_type == "Shape"]
        return [*read, *(name for node in self.nodes for name in (node.input[0], node.output[0]))]

    def candidates(self) -> tuple[dict[str, Candidate], list[Finding]]:
        """The candidates by the value that they compute, and a refusal of each convolution in groups that is
        out of reach."""
        ids = _Ids()
        found: dict[str, Candidate] = {}
        refused: list[Finding] = []
        names = [name for node in self.nodes for name in node.input[1:]]
        self.constants.load(name for name in names if name not in self.model.stored)
        for node in self.nodes:
            candidate = self._candidate(node, ids)
            if isinstance(candidate, Candidate):
                found[node.output[0]] = candidate
            elif candidate is not None:
                refused.append(candidate)
        return found, [*refused, *_out_of_reach(self.model, ids)]

    def _may_be_candidate(self, node: NodeProto) -> bool:
        weight = node.input[1]
        unknown = weight not in self.constants and weight not in self.model.inputs
        grouped = attribute(node, "group", 1) > 1 or self._is_bank(node)
        return grouped or unknown or self._may_repeat(weight)

    def _is_bank(self, node: NodeProto) -> bool:
        """Whether a convolution is a bank of few filters on one channel."""
        stored = self.constants.model.stored.get(node.input[1])
        value = self.constants.peek(node.input[1]) if stored is None else None
        shape = () if value is None else value.shape
        return node.op_type == "Conv" and is_bank(shape if stored is None else stored.dims)

    def _candidate(self, node: NodeProto, ids: _Ids) -> Candidate | Finding | None:
        """The candidate, a refusal of it, or None for an ordinary dense convolution."""
        weight, groups = node.input[1], attribute(node, "group", 1)
        if weight not in self.constants:
            return None if groups == 1 else _runtime(node, self.model, ids)
        if groups == 1 and not self._may_repeat(weight) and not self._is_bank(node):
            return None
        array = self.constants.get(weight)
        if array is None or array.ndim not in (3, 4, 5):
            said = "its weight cannot be computed"
            return None if groups == 1 else refusal(ids.of(node), node, "weight", said)
        source = self.constants.source(weight)
        stored = math.prod(self.model.stored[source].dims) if source is not None else 0
        return Candidate(ids.of(node), node, tensor_of(array), source, stored)

    def _may_repeat(self, weight: str) -> bool:
        """Whether a weight without groups is of one channel, or in equal diagonal blocks. Each is looked at
        once, which reads all of its numbers."""
        if weight not in self._repeating and weight in self.constants:
            self._repeating[weight] = _repeats(weight, self.constants)
        return self._repeating.get(weight, False)


class _Ids:
    """Readable ids, unique in the model."""

    def __init__(self) -> None:
        self._seen: set[str] = set()

    def of(self, node: NodeProto, prefix: str = "") -> str:
        name = prefix + (_from_torch(node) or node.name or (node.output[0] if node.output else node.op_type))
        unique, count = name, 1
        while unique in self._seen:
            count += 1
            unique = f"{name}#{count}"
        self._seen.add(unique)
        return unique


def _from_torch(node: NodeProto) -> str | None:
    """The id that torch's exporter lets one give: the path of the module, and the node of the FX graph."""
    for entry in node.metadata_props:
        if entry.key == _SCOPES:
            try:
                scopes = [str(scope) for scope in json.loads(entry.value.replace("'", '"'))]
            except ValueError:
                return None
            if scopes and re.match(r"_?conv", scopes[-1]):
                return "/".join(_as_torch(scope, node) for scope in scopes[-2:] if scope)
            # A batch norm that was multiplied into a convolution gives the name; the weight knows better.
            return node.input[1].rpartition(".")[0] or None
    return None


def _as_torch(name: str, node: NodeProto) -> str:
    """torch's exporter has one operator for all transposed convolutions, and names its nodes after it."""
    if node.op_type != "ConvTranspose" or not re.fullmatch(r"convolution(_\d+)?", name):
        return name
    dim = len(attribute(node, "strides", [0, 0]))
    return name.replace("convolution", f"conv_transpose{dim}d")


def _runtime(node: NodeProto, model: OnnxModel, ids: _Ids) -> Finding:
    producer = model.producers.get(node.input[1])
    if producer is not None and producer.op_type == "DequantizeLinear":
        return refusal(ids.of(node), node, "quantised", "its weight is quantised for integer arithmetic")
    said = "its weight is not constant: the graph computes it, or a user gives it"
    return refusal(ids.of(node), node, "runtime", said)


def tensor_of(array: Array) -> Tensor:
    """A tensor of its own with the numbers of an array. numpy has bfloat16 only as an extension."""
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
    return torch.from_numpy(np.array(array))


def _repeats(name: str, constants: Constants) -> bool:
    """Whether a constant weight without groups is of one channel, or in equal diagonal blocks."""
    stored = constants.model.stored
    shape = tuple(stored[name].dims) if name in stored else None
    if shape is not None and (len(shape) not in (3, 4, 5) or 1 in shape[:2]):
        return shape[:2] == (1, 1)
    array = constants.peek(name)
    if array is None or array.ndim not in (3, 4, 5):
        return False
    return array.shape[:2] == (1, 1) or find_diagonal_blocks(tensor_of(array)) is not None


def _out_of_reach(model: OnnxModel, ids: _Ids) -> Iterator[Finding]:
    for node in model.graph.node:
        if node.op_type in _OTHERS and attribute(node, "group", 1) > 1:
            full = "::".join(part for part in (node.domain, node.op_type) if part)
            said = f"it is a {full}, which is left as it is"
            yield refusal(ids.of(node), node, "quantised" if "Fused" not in node.op_type else "fused", said)
        for body in bodies(node):
            yield from _inside(body, f"{node.name or node.op_type}/", "the body of a node", ids)
    for function in model.proto.functions:
        body = GraphProto(node=function.node)
        yield from _inside(body, f"{function.name}/", "a function of the model", ids)


def _inside(body: GraphProto, prefix: str, what: str, ids: _Ids) -> Iterator[Finding]:
    for node in body.node:
        if node.op_type in _CONVOLUTIONS and _may_have_groups(node):
            said = f"it is inside {what}; only the main graph is rewritten"
            yield refusal(ids.of(node, prefix), node, "subgraph", said)
        for inner in bodies(node):
            yield from _inside(inner, f"{prefix}{node.name or node.op_type}/", what, ids)


def _may_have_groups(node: NodeProto) -> bool:
    """Whether a convolution has groups, or a call of its function may give it some."""
    given = any(one.name == "group" and one.ref_attr_name for one in node.attribute)
    return given or attribute(node, "group", 1) > 1


def refusal(site_id: str, node: NodeProto, code: str, reason: str) -> Finding:
    """The finding on a convolution that is left out, with the reason."""
    op = "conv_transpose" if "Transpose" in node.op_type else "conv"
    dim = len(attribute(node, "kernel_shape", [])) or 2
    geometry = ConvGeometry(f"{op}{dim}d", 0, 0, attribute(node, "group", 1), (), (), (), (), ())
    site = ConvSite(site_id, "onnx", node.name, geometry, (), WeightOrigin("computed"))
    return Finding(site, refusal=Refusal(site_id, "site", code, reason))


def dense_convolutions(model: OnnxModel) -> dict[str, str]:
    """The convolutions without groups of the main graph, by their ids: why each may be no candidate."""
    ids, found = _Ids(), {}
    for node in model.graph.node:
        if node.op_type in _CONVOLUTIONS and attribute(node, "group", 1) == 1:
            weight = model.stored.get(node.input[1])
            shape = "x".join(map(str, weight.dims)) if weight is not None else "of a computed shape"
            said = "each output channel reads every input channel with a kernel of its own"
            found[ids.of(node)] = (
                f"It is no candidate: its groups are one, with a weight {shape}, and {said}. Candidates are "
                "convolutions in groups, of one channel, and with a weight that is zero off equal blocks."
            )
    return found
