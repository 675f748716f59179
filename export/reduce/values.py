"""What the values of a graph are for one input: their types, their shapes, and the numbers of some."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto

from export.read_onnx.model import OnnxModel, read_by
from export.runtime.session import Array, open_session, run

# Numbers of which there are more are not kept.
_MOST = 1 << 20
# Integers of other types are data: pixels, or activations of a quantised model.
_SIZES_AND_DECISIONS = ("bool", "int32", "int64")


@dataclass(frozen=True)
class Values:
    """Values by their names.

    Args:
        shapes, types: of every value that is known.
        numbers: of those that cannot be other numbers: sizes, decisions, and what follows from constants.
    """

    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    types: dict[str, str] = field(default_factory=dict)
    numbers: dict[str, Array] = field(default_factory=dict)

    def save(self, file: Path) -> None:
        """Write them to a file of numpy. One that is not kept as numbers is there as its shape."""
        stored = {f"shape {name}": np.array(shape, np.int64) for name, shape in self.shapes.items()}
        stored |= {f"type {name}": np.array(kind) for name, kind in self.types.items()}
        stored |= {f"numbers {name}": array for name, array in self.numbers.items()}
        # Not as keyword arguments: a value may have the name of one.
        with file.open("wb") as opened:
            np.savez(opened, allow_pickle=False, **stored)  # type: ignore[arg-type]


def load_values(file: Path) -> Values:
    """What :meth:`Values.save` wrote."""
    made = Values()
    with np.load(file, allow_pickle=False) as stored:
        for key in stored.files:
            what, _, name = key.partition(" ")
            if what == "shape":
                made.shapes[name] = tuple(int(size) for size in stored[key])
            elif what == "type":
                made.types[name] = str(stored[key])
            else:
                made.numbers[name] = stored[key]
    return made


def record(model: OnnxModel, arrays: Sequence[Array]) -> Values:
    """Run a model in onnxruntime, with every value as an output.

    Raises:
        ExportError: it does not run.
    """
    names = [name for node in model.graph.node for name in node.output if name]
    proto = ModelProto()
    proto.CopyFrom(model.proto)
    del proto.graph.output[:]
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = open_session(proto.SerializeToString(), optimized=False, folder=model.path.parent)
    found = dict(zip(model.inputs, arrays, strict=True))
    found |= zip(names, run(session, arrays), strict=True)
    constant, made = set(_constant(model)), Values()
    for name, array in found.items():
        if not isinstance(array, np.ndarray):  # a sequence
            continue
        made.shapes[name], made.types[name] = array.shape, array.dtype.name
        fixed = name in constant or array.dtype.name in _SIZES_AND_DECISIONS
        if fixed and name not in model.inputs and array.size <= _MOST and array.dtype.kind != "O":
            made.numbers[name] = array
    return made


def _constant(model: OnnxModel) -> Iterator[str]:
    """The values that follow from no input."""
    moving = set(model.inputs)
    for node in model.graph.node:
        if moving.isdisjoint(read_by(node)):
            yield from node.output
        else:
            moving.update(node.output)
