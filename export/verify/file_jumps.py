"""Can rounding turn a decision of an ONNX file? Its evaluation in float64 tells.

The weights of a copy are moved by noise. Noise far below a rounding error moves the outputs in proportion to
it. Noise of ``FAR`` rounding errors must then move them so many times as far. An output that is moved much
farther jumps: the noise has turned a comparison, a rounding to integers, or another decision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from onnx import GraphProto, ModelProto, numpy_helper

from export.read_onnx.model import bodies
from export.runtime.session import Array
from export.verify.distances import apart_by_output
from export.verify.reference import FAR, JUMP
from export.verify.weight_noise import moved, terms_of_weights

# Their outputs jump if their inputs change a little.
_DECIDE = frozenset(
    """
    ArgMax ArgMin TopK Greater GreaterOrEqual Less LessOrEqual Equal Cast CastLike Round Floor Ceil Sign
    NonZero NonMaxSuppression Hardmax Unique Mod Shrink ThresholdedRelu QuantizeLinear DynamicQuantizeLinear
    """.split()
)
# A rounding error of float32, and noise that is small beside it and large beside those of float64.
_UNIT, _LITTLE = 2.0**-24, 2.0**-36
Evaluation = Callable[[Sequence[Array]], list[Array]]


class FileJumps:
    """A file that may decide.

    Args:
        proto: the file in float64.
        evaluation: gives the evaluation of a copy of it.
    """

    def __init__(self, proto: ModelProto, evaluation: Callable[[ModelProto], Evaluation]) -> None:
        self._clean, self._evaluation = proto, evaluation
        self._moved: dict[float, Evaluation] = {}
        self.decides = not _DECIDE.isdisjoint(_operators(proto))

    def found(self, arrays: Sequence[Array], clean: Sequence[Array]) -> list[bool]:
        """For each output, whether it jumps. ``clean`` is what the file itself gives for ``arrays``."""
        if not self.decides:
            return [False] * len(clean)
        near = self._apart(arrays, clean, _LITTLE)
        jumps = [False] * len(clean)
        for noise in (FAR * _UNIT, -FAR * _UNIT):  # and its mirror image
            far = self._apart(arrays, clean, noise)
            here = [self._jumps(*three) for three in zip(clean, near, far, strict=True)]
            jumps = [a or b for a, b in zip(jumps, here, strict=True)]
        return jumps

    def _jumps(self, clean: Array, near: float, far: float) -> bool:
        if clean.dtype.kind != "f":
            return far > 0
        # What does not change with a little noise may still change a little with much of it: relu(0).
        scale = float(np.abs(clean[np.isfinite(clean)]).max(initial=0.0))
        return far > JUMP * max(near * FAR * _UNIT / _LITTLE, FAR * _UNIT * scale)

    def _apart(self, arrays: Sequence[Array], clean: Sequence[Array], noise: float) -> list[float]:
        if noise not in self._moved:
            self._moved[noise] = self._evaluation(_with_noise(self._clean, noise))
        if not terms_of_weights(self._clean.graph):
            random = np.random.default_rng(0)
            arrays = [moved(array, 1.0, random, noise) for array in arrays]
        return apart_by_output(clean, self._moved[noise](arrays))


def _with_noise(proto: ModelProto, noise: float) -> ModelProto:
    """A copy of a model with noise in the weights of its convolutions and matrix products."""
    copy, random = ModelProto(), np.random.default_rng(0)
    copy.CopyFrom(proto)
    terms = terms_of_weights(copy.graph)
    for tensor in copy.graph.initializer:
        if tensor.name in terms:
            weight = numpy_helper.to_array(tensor)
            weight = moved(weight, terms[tensor.name], random, noise)
            tensor.CopyFrom(numpy_helper.from_array(weight, tensor.name))
    return copy


def _operators(proto: ModelProto) -> Iterator[str]:
    for function in proto.functions:
        yield from _of(GraphProto(node=function.node))
    yield from _of(proto.graph)


def _of(graph: GraphProto) -> Iterator[str]:
    for node in graph.node:
        yield node.op_type
        for body in bodies(node):
            yield from _of(body)
