"""Pieces of a graph as files: some of its nodes, with what they read as inputs, or as constants."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir

from export.read_onnx.model import OnnxModel, read_by
from export.reduce.values import Values
from export.runtime.session import Array
from export.write_onnx.file import save
from fx_passes.errors import ExportError


class Pieces:
    """All pieces of one model.

    Args:
        model: the file.
        values: what its values are for an example. A value that is cut and has numbers there becomes a
            constant; another one becomes an input.
        fixed: whether inputs get the sizes of the example. Otherwise they keep what the file states.
    """

    def __init__(self, model: OnnxModel, values: Values, *, fixed: bool) -> None:
        self.model, self.values, self.fixed = model, values, fixed
        self.nodes = tuple(range(len(model.graph.node)))

    def write(self, nodes: Sequence[int], path: Path) -> dict[str, tuple[int, ...]]:
        """Write the piece with these nodes, in their order, to ``path``.

        Returns:
            The shapes of its inputs for the example, by name.

        Raises:
            ExportError: such a piece cannot be written: the type of a value is not known, or
                ``onnx.checker`` refuses it.
        """
        whole = ir.load(self.model.path)
        if not self.values.types:  # the original does not run
            whole = ir.passes.common.ShapeInferencePass()(whole).model
        constants, inputs = self._cut(nodes)
        values = ir.convenience.create_value_mapping(whole.graph)
        for name in inputs:
            self._describe(values[name])
        outputs = self._outputs(nodes)
        for name in outputs:
            self._describe(values[name], always=False)
        try:
            graph = ir.convenience.extract(whole.graph, [*inputs, *constants], outputs)
        except ValueError as error:
            raise ExportError(f"no piece with these nodes: {error}") from error
        _fix(graph, {name: self.values.numbers[name] for name in constants})
        functions = list(whole.functions.values())
        piece = ir.Model(graph, ir_version=whole.ir_version, functions=functions)
        save(ir.external_data.load_to_model(piece), path)
        return {name: self.values.shapes[name] for name in inputs if name in self.values.shapes}

    def _cut(self, nodes: Sequence[int]) -> tuple[list[str], list[str]]:
        """The values that a piece reads and does not compute: those with numbers, and the others."""
        graph = self.model.graph
        made = {name for i in nodes for name in graph.node[i].output} | set(self.model.stored)
        read = dict.fromkeys(name for i in nodes for name in read_by(graph.node[i]) if name not in made)
        constants = [name for name in read if name in self.values.numbers]
        return constants, [name for name in read if name not in self.values.numbers]

    def _outputs(self, nodes: Collection[int]) -> list[str]:
        """The values that a piece computes for others: other nodes, the user, or nobody."""
        graph, inside = self.model.graph, set(nodes)
        theirs = {value.name for value in graph.output}
        ours: set[str] = set()
        for i, node in enumerate(graph.node):
            (ours if i in inside else theirs).update(read_by(node))
        made = [name for i in nodes for name in graph.node[i].output if name]
        return [name for name in made if name in theirs or name not in ours]

    def _describe(self, value: ir.Value, *, always: bool = True) -> None:
        """Give an end of a piece the type and the shape that it has for the example."""
        name = str(value.name)
        if name in self.values.types and (value.type is None or value.dtype is None):
            value.type = ir.TensorType(ir.DataType.from_numpy(np.dtype(self.values.types[name])))
        if name in self.values.shapes and (value.shape is None or self.fixed):
            value.shape = ir.Shape(self.values.shapes[name])
        if always and (value.type is None or value.shape is None):
            raise ExportError(f"no piece can begin at `{name}`: its type or its shape is not known")


def _fix(graph: ir.Graph, numbers: dict[str, Array]) -> None:
    """Make inputs of a graph into constants."""
    for value in [value for value in graph.inputs if value.name in numbers]:
        tensor = ir.tensor(numbers[str(value.name)], name=value.name)
        graph.inputs.remove(value)
        value.const_value, value.type = tensor, ir.TensorType(tensor.dtype)
        value.shape = ir.Shape(numbers[str(value.name)].shape)
        graph.register_initializer(value)
