"""How far rounding can move the outputs of an ONNX file, for a model that cannot run in float64.

A copy of the file gets the weights of its convolutions and matrix products as inputs. They are moved as far
as another order of summation would move the sums that they are factors of. A weight in sums of n terms moves
by ``level * sqrt(n) * 2^-24`` of itself (the law is in ``float64.py``). Half of that has one sign for the
whole weight, half has one for each tap. It is more than rounding does to the sum itself, so the processor
that runs the copy makes little difference.

Numbers below the smallest normal one have fewer bits. There, rounding moves each sum by units of the smallest
number, whatever its size: ``level * sqrt(n)`` of them, with the n of all sums together.

torch stores all weights outside the file. The smallest of them are read, up to a limit for all together: a
shared kernel is small. The others stay as they are: both files compute with them by the same operators. For a
file without weights, the floating-point inputs are moved.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path

import numpy as np
import onnx
from onnx.external_data_helper import uses_external_data

from export.runtime.session import Array, open_session, run
from export.verify.distances import apart_by_output

# The size of the noise, in rounding errors, and the number of draws. ``reference.py`` needs less noise.
LEVEL = 4.0
DRAWS = 4
# Elements of all weights outside the file that are read. Each is held twice.
MOST_OUTSIDE = 2**26
_PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_WAYS = ("Identity", "Reshape", "Unsqueeze", "Squeeze", "Transpose", "Cast", "Expand", "Where", "Flatten")


class WeightNoise:
    """A file whose weights can be moved.

    Args:
        path: the file.

    Raises:
        ExportError: onnxruntime does not accept the copy.
    """

    def __init__(self, path: Path) -> None:
        model = onnx.load(path, load_external_data=False)
        terms = terms_of_weights(model.graph)
        stored = {tensor.name: tensor for tensor in model.graph.initializer}
        folder = str(path.parent)
        self.weights = {
            name: (onnx.numpy_helper.to_array(stored[name], folder), n) for name, n in terms.items()
        }
        self.names = [value.name for value in model.graph.input if value.name not in stored]
        listed = {value.name for value in model.graph.input}
        for name in self.weights:
            tensor = stored[name]
            if name not in listed:
                info = onnx.helper.make_tensor_value_info(name, tensor.data_type, list(tensor.dims))
                model.graph.input.append(info)
            model.graph.initializer.remove(tensor)
        model.ir_version = max(model.ir_version, 4)
        self.session = open_session(model.SerializeToString(), optimized=False, folder=path.parent)

    def spread(self, inputs: Sequence[Array], enough: Mapping[int, float] | None = None) -> list[float]:
        """For each output, the farthest that any draw moves any element.

        Args:
            inputs: in the order of the inputs of the file.
            enough: distances that suffice, by the numbers of outputs. No more draws are made once all of them
                are reached. None: all draws are made.

        Raises:
            ExportError: onnxruntime cannot run the file on these inputs.
        """
        clean = self._run(inputs, None)
        units = LEVEL * math.sqrt(sum(terms for _, terms in self.weights.values()))
        least = [units * _smallest(output) for output in clean]
        farthest = list(least)
        for seed in range(DRAWS):
            found = self._run(inputs, np.random.default_rng(seed))
            here = [_apart(a, b) + unit for a, b, unit in zip(clean, found, least, strict=True)]
            farthest = [max(pair) for pair in zip(farthest, here, strict=True)]
            if enough and all(farthest[output] >= wanted for output, wanted in enough.items()):
                break
        return farthest

    def far(self, inputs: Sequence[Array], level: float) -> list[float]:
        """For each output, the farthest that one draw of noise of ``level`` moves any element, or the mirror
        image of that draw. For integers: 1 if any changes."""
        clean = self._run(inputs, None)
        found = [self._run(inputs, np.random.default_rng(0), one) for one in (level, -level)]
        return [max(pair) for pair in zip(*(apart_by_output(clean, one) for one in found), strict=True)]

    def _run(
        self, inputs: Sequence[Array], random: np.random.Generator | None, level: float = LEVEL
    ) -> list[Array]:
        feed = dict(zip(self.names, inputs, strict=True))
        for name, (weight, terms) in self.weights.items():
            feed[name] = weight if random is None else moved(weight, terms, random, level)
        if not self.weights and random is not None:
            feed = {name: moved(array, 1.0, random, level) for name, array in feed.items()}
        return run(self.session, [feed[slot.name] for slot in self.session.get_inputs()])


def _smallest(array: Array) -> float:
    """The smallest number above zero of the type of an array."""
    return float(np.finfo(array.dtype).smallest_subnormal) if array.dtype.kind == "f" else 0.0


def moved(array: Array, terms: float, random: np.random.Generator, level: float, unit: float = 0) -> Array:
    """A weight with noise; other arrays as they are.

    Args:
        terms: of the sums in which it is used.
        level: the size of the noise, in rounding errors.
        unit: a rounding error. 0: that of the type of the array.
    """
    if not np.issubdtype(array.dtype, np.floating):
        return array
    unit = unit or max(float(np.finfo(array.dtype).eps) / 2, 2.0**-40)
    signs = random.integers(0, 2, array.shape, dtype=np.int8) + random.integers(-1, 1, dtype=np.int8)
    # Type by type: a sum in float64 of a large weight takes as long as a run.
    size = array * array.dtype.type(level * math.sqrt(terms) * unit)
    return np.asarray(array + size * signs, dtype=array.dtype)


def terms_of_weights(graph: onnx.GraphProto) -> dict[str, float]:
    """The weights that can be moved, and how many terms the sums have in which they are used."""
    left_alone = _left_outside(graph)
    stored = {tensor.name: tensor for tensor in graph.initializer if tensor.name not in left_alone}
    producers = {name: node for node in graph.node for name in node.output}
    found: dict[str, float] = {}
    for node in graph.node:
        if node.op_type not in _PRODUCTS:
            continue
        for name in node.input[:2]:
            while name not in stored and name in producers and producers[name].op_type in _WAYS:
                source = producers[name]
                name = source.input[source.op_type == "Where"]
            if name in stored and stored[name].data_type in (1, 10, 11):
                dims = stored[name].dims
                rows = dims[-1] if node.op_type in ("Gemm", "MatMul") else dims[0] if dims else 1
                terms = math.prod(dims) / max(1, rows)
                found[name] = max(found.get(name, 1.0), terms)
    return found


def _left_outside(graph: onnx.GraphProto) -> set[str]:
    """The tensors outside the file that are not read: the largest ones."""
    outside = [tensor for tensor in graph.initializer if uses_external_data(tensor)]
    outside.sort(key=lambda tensor: math.prod(tensor.dims))
    together = accumulate(math.prod(tensor.dims) for tensor in outside)
    return {tensor.name for tensor, so_far in zip(outside, together, strict=True) if so_far > MOST_OUTSIDE}


def _apart(a: Array, b: Array) -> float:
    """The largest difference of floating-point numbers; 0 for others, which rounding moves only by jumps."""
    return apart_by_output([a], [b])[0] if a.shape == b.shape and a.dtype.kind == "f" else 0.0
