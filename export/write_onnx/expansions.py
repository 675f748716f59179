"""Where an ONNX graph expands a stored kernel into the weight of a convolution."""

from __future__ import annotations

import math

import onnx_ir as ir

_CONVOLUTIONS = ("Conv", "ConvTranspose")
_RELAYOUTS = ("Identity", "Reshape", "Unsqueeze", "Squeeze", "Transpose", "Cast", "CastLike")


class Expansions:
    """The nodes from the Expand of a stored kernel or bias down to its convolution: ``kept`` and ``folded``.

    To be folded is a bias, one number a channel: tools that quantise look for an initializer. So is what is
    in front of a batch norm: the optimizer multiplies its scale, another for each channel, into the weight,
    and what it leaves is no repeat any more.
    """

    def __init__(self, model: ir.Model) -> None:
        self.model = model
        kept: set[ir.Node] = set()
        folded: set[ir.Node] = set()
        self._biases: dict[str, str] = {}
        for node in ir.traversal.RecursiveGraphIterator(model.graph):
            if node.op_type in _CONVOLUTIONS:
                weight, *biases = (_way_from_expand(value) for value in node.inputs[1:3])
                (folded if _before_batch_norm(node) else kept).update(weight)
                for way in biases:
                    folded.update(way)
                    if way and (source := _stored(way[-1].inputs[0])) is not None:
                        self._biases[str(way[0].outputs[0].name)] = str(source.name)
        self.kept, self.folded = kept, folded - kept
        sources = {node: _stored(node.inputs[0]) for node in kept if node.op_type == "Expand"}
        self._kernels = {node: str(source.name) for node, source in sources.items() if source is not None}

    def name_sources(self) -> None:
        """Give each kernel that folding reshaped, and each bias that it repeated, the name of its parameter
        back; afterwards."""
        stored = self.model.graph.initializers
        for expand, name in self._kernels.items():
            kernel = expand.inputs[0]
            if expand.graph is None or kernel is None or not kernel.is_initializer():
                continue
            if name not in stored:
                kernel.name = name
        for bias, name in self._biases.items():
            if bias in stored and name not in stored:
                stored[bias].name = name


def _before_batch_norm(conv: ir.Node) -> bool:
    users = list(conv.outputs[0].consumers())
    if len(users) != 1 or users[0].op_type != "BatchNormalization":
        return False
    training = users[0].attributes.get("training_mode")
    return training is None or not training.as_int()


def _way_from_expand(value: ir.Value | None) -> list[ir.Node]:
    """Nodes from the nearest Expand that repeats something down to ``value``; empty where there is none."""
    way: list[ir.Node] = []
    while value is not None and (node := value.producer()) is not None and node.inputs:
        way.append(node)
        # Where(mask, expanded kernel, 0) carries its data second, every other operator first.
        source = node.inputs[1 if node.op_type == "Where" else 0]
        if node.op_type == "Expand" and _repeats(node):
            return way
        value = source
    return []


def _repeats(expand: ir.Node) -> bool:
    """Whether an Expand makes more elements than it takes; where the sizes are open, it may."""
    counts = []
    for value in (expand.inputs[0], expand.outputs[0]):
        if value is None or value.shape is None or not value.shape.is_static():
            return True
        counts.append(math.prod(value.shape.numpy()))
    return counts[0] < counts[1]


def _stored(value: ir.Value | None) -> ir.Value | None:
    """The initializer that ``value`` is, in another shape or type; None where it is computed otherwise."""
    while value is not None and not value.is_initializer():
        node = value.producer()
        value = node.inputs[0] if node is not None and node.op_type in _RELAYOUTS else None
    return value
