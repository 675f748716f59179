"""Can rounding turn a decision of an ONNX file? Noise in its weights tells.

The weights of a copy are moved by noise. Noise far below a rounding error moves the outputs in proportion to
it. Only float64 shows that. Noise of ``FAR`` rounding errors must then move them so many times as far, which
onnxruntime shows in a short time, and float64 without errors of its own. An output that is moved much farther
jumps: the noise has turned a comparison, a rounding to integers, or another decision.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper

from export.read_onnx.model import attribute, bodies, read_by
from export.runtime.session import Array
from export.verify.distances import apart_by_output
from export.verify.reference import FAR, JUMP
from export.verify.weight_noise import WeightNoise, moved, terms_of_weights

# Their outputs jump if their inputs change a little.
_DECIDE = frozenset(
    """
    ArgMax ArgMin TopK Greater GreaterOrEqual Less LessOrEqual Equal Cast CastLike Round Floor Ceil Sign
    NonZero NonMaxSuppression Hardmax Unique Mod Shrink ThresholdedRelu QuantizeLinear DynamicQuantizeLinear
    """.split()
)
_FRACTIONS = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)
# A rounding error of float32, and noise that is small beside it and large beside those of float64.
_UNIT, _LITTLE = 2.0**-24, 2.0**-12
Evaluation = Callable[[Sequence[Array]], list[Array]]


class FileJumps:
    """A file that may decide.

    Args:
        path: the file.
        proto: the same in float64.
        evaluation: gives the evaluation of a version of ``proto``.
    """

    def __init__(self, path: Path, proto: ModelProto, evaluation: Callable[[ModelProto], Evaluation]) -> None:
        self._path, self._clean, self._evaluation = path, proto, evaluation
        self._quick: WeightNoise | None = None
        self._noisy: dict[float, Evaluation] = {}
        self.decides = _may_decide(proto)

    def found(self, arrays: Sequence[Array], clean: Sequence[Array]) -> list[bool]:
        """For each output, whether it jumps.

        Args:
            arrays: the inputs.
            clean: the outputs in float64.
        """
        if not self.decides:
            return [False] * len(clean)
        near = self._far(arrays, clean, _LITTLE)
        if self._quick is None:
            self._quick = WeightNoise(self._path)
        suspects = [_jumps(*three) for three in zip(clean, near, self._quick.far(arrays, FAR), strict=True)]
        if not any(suspects):
            return suspects
        # In float32, sums that cancel may move as far.
        both = zip(self._far(arrays, clean, FAR), self._far(arrays, clean, -FAR), strict=True)
        return [_jumps(*three) for three in zip(clean, near, map(max, both), strict=True)]

    def _far(self, arrays: Sequence[Array], clean: Sequence[Array], level: float) -> list[float]:
        """How far noise moves each output in float64."""
        if level not in self._noisy:
            self._noisy[level] = self._evaluation(_with_noise(self._clean, level))
        if not terms_of_weights(self._clean.graph):
            random = np.random.default_rng(0)
            arrays = [moved(array, 1.0, random, level, _UNIT) for array in arrays]
        return apart_by_output(clean, self._noisy[level](arrays))


def _jumps(clean: Array, near: float, far: float) -> bool:
    if clean.dtype.kind != "f":
        return far > 0
    # What does not change with a little noise may still change a little with much of it: relu(0).
    scale = float(np.abs(clean[np.isfinite(clean)]).max(initial=0.0))
    return far > JUMP * max(near * FAR / _LITTLE, FAR * _UNIT * scale)


def _with_noise(proto: ModelProto, level: float) -> ModelProto:
    """A copy of a model with noise in the weights of its convolutions and matrix products."""
    copy, random = ModelProto(), np.random.default_rng(0)
    copy.CopyFrom(proto)
    terms = terms_of_weights(copy.graph)
    for tensor in copy.graph.initializer:
        if tensor.name in terms:
            weight = numpy_helper.to_array(tensor)
            weight = moved(weight, terms[tensor.name], random, level, _UNIT)
            tensor.CopyFrom(numpy_helper.from_array(weight, tensor.name))
    return copy


def _may_decide(proto: ModelProto) -> bool:
    """Whether an operator that decides has a number before it that a weight or an input moves. Sizes are no
    such numbers."""
    if any(node.op_type in _DECIDE for function in proto.functions for node in function.node):
        return True
    return _decides(proto.graph, {value.name for value in proto.graph.input})


def _decides(graph: GraphProto, moving: set[str]) -> bool:
    """As above. ``moving`` has the values that move; those of the graph are added."""
    for node in graph.node:
        for body in bodies(node):
            if _decides(body, moving | {value.name for value in body.input}):
                return True
        if node.op_type not in ("Shape", "Size") and not moving.isdisjoint(read_by(node)):
            if node.op_type in _DECIDE and not _keeps_fractions(node):
                return True
            moving.update(node.output)
    return False


def _keeps_fractions(node: NodeProto) -> bool:
    """Whether a node is a cast to a floating-point type."""
    return node.op_type == "Cast" and attribute(node, "to", 0) in _FRACTIONS
