"""The values of an ONNX graph that are known before it runs.

A value is constant if it is an initializer that no input replaces, or if a node computes it from constants
only. onnxruntime computes such a value, with the nodes of the file at the opset of the file. So the numbers
are those that the file itself computes with, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import onnx
from onnx import ModelProto, NodeProto, TensorProto
from onnx.external_data_helper import ExternalDataInfo, uses_external_data

from export.read_onnx.model import OnnxModel, bodies
from export.read_onnx.types import DTYPES, without_weights
from export.runtime.session import Array, open_session, run
from fx_passes.errors import ExportError, LoadError, one_line

# They give other numbers each time.
_RANDOM = frozenset(
    "RandomNormal RandomNormalLike RandomUniform RandomUniformLike Multinomial Bernoulli Dropout".split()
)
# Integer arithmetic that a runtime recognises: its constants are not taken apart.
_QUANTISED = frozenset("QuantizeLinear DequantizeLinear DynamicQuantizeLinear".split())

# A constant of more bytes is not computed: a few numbers in a file can ask for any amount of memory.
MOST_BYTES = 1 << 31


class Constants:
    """The constants of a model. Each is read or computed when it is first asked for.

    Args:
        model: the file.
    """

    def __init__(self, model: OnnxModel) -> None:
        self.model = model
        self._known: dict[str, Array | None] = {}
        self._told: dict[str, Array] = {}
        self._names = set(model.stored)
        for node in model.graph.node:
            self.follow(node)

    def follow(self, node: NodeProto) -> None:
        """Take the outputs of a node for constants if its inputs are."""
        if self._is_foldable(node):
            self._names.update(name for name in node.output if name)

    def know(self, name: str, value: Array) -> None:
        """Take a value for a constant whose numbers follow from the types of the graph."""
        self._names.add(name)
        self._known[name] = self._told[name] = value

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def __getitem__(self, name: str) -> Array:
        """The numbers of a constant.

        Raises:
            KeyError: it is no constant, or onnxruntime cannot compute it.
            LoadError: its numbers lie in another file, and cannot be read there.
        """
        self.load([name])
        value = self._known.get(name)
        if value is None:
            raise KeyError(name)
        return value

    def get(self, name: str) -> Array | None:
        """The numbers of a constant; None if it is none, or cannot be computed."""
        return self[name] if name in self._names and self._is_computable(name) else None

    def peek(self, name: str) -> Array | None:
        """As :meth:`get`, but the numbers of an initializer are not kept."""
        return self._stored(name) if name in self.model.stored else self.get(name)

    def load(self, names: Iterable[str]) -> None:
        """Read or compute several constants at once, which is faster than one after the other."""
        wanted = [name for name in dict.fromkeys(names) if name in self._names and name not in self._known]
        computed = []
        for name in wanted:
            if name in self.model.stored:
                self._known[name] = self._stored(name)
            else:
                computed.append(name)
        if computed:
            self._known.update(self._computed(computed))

    def source(self, name: str) -> str | None:
        """The initializer whose numbers a constant is made of, if there is one. Initializers that can only
        be shapes, indices or factors do not count."""
        found = [one for one in self._needed([name]) if one in self.model.stored]
        if name not in found:
            found = [one for one in found if _is_kernel(self.model.stored[one])]
        return found[0] if len(found) == 1 else None

    def _is_computable(self, name: str) -> bool:
        self.load([name])
        return self._known.get(name) is not None

    def _is_foldable(self, node: NodeProto) -> bool:
        if not self.model.is_standard(node) or node.op_type in _RANDOM | _QUANTISED:
            return False
        if next(iter(bodies(node)), None) is not None:
            return False
        given = [name for name in node.input if name]
        return all(name in self._names for name in given) and (bool(given) or node.op_type == "Constant")

    def _stored(self, name: str) -> Array:
        tensor = self.model.stored[name]
        self._require_file(tensor)
        try:
            return onnx.numpy_helper.to_array(tensor, base_dir=str(self.model.path.parent))
        except Exception as error:
            raise LoadError(
                f"{self.model.path}: initializer `{name}` cannot be read: {one_line(error)}"
            ) from error

    def _require_file(self, tensor: TensorProto) -> None:
        """Raise LoadError if a tensor lies in a file that is missing. onnxruntime would not say which."""
        if uses_external_data(tensor):
            file = self.model.path.parent / ExternalDataInfo(tensor).location
            if not file.is_file():
                raise LoadError(
                    f"{self.model.path}: the weights of initializer `{tensor.name}` are missing: no such "
                    f"file: {file}"
                )

    def _computed(self, names: list[str]) -> dict[str, Array | None]:
        try:
            program = self._program(names)
            _require_room(program)
            session = open_session(
                program.SerializeToString(), optimized=False, folder=self.model.path.parent
            )
            return dict(zip(names, run(session, []), strict=True))
        except ExportError:
            if len(names) == 1:
                return {names[0]: None}
        return {name: value for one in names for name, value in self._computed([one]).items()}

    def _program(self, names: list[str]) -> ModelProto:
        """The nodes that compute the constants, as a model without inputs."""
        needed = self._needed(names)
        made = needed - self._told.keys()
        nodes = [node for node in self.model.graph.node if not made.isdisjoint(node.output)]
        stored = [tensor for name, tensor in self.model.stored.items() if name in needed]
        for tensor in stored:
            self._require_file(tensor)
        told = [name for name in self._told if name in needed]
        stored += [onnx.numpy_helper.from_array(self._told[name], name) for name in told]
        outputs = [onnx.ValueInfoProto(name=name) for name in names]
        graph = onnx.helper.make_graph(nodes, "constants", [], outputs, stored)
        return onnx.helper.make_model(
            graph, opset_imports=self.model.proto.opset_import, ir_version=self.model.proto.ir_version
        )

    def _needed(self, names: Iterable[str]) -> set[str]:
        """The values that ``names`` are made of, and themselves."""
        needed, stack = set[str](), list(names)
        while stack:
            name = stack.pop()
            if name and name not in needed:
                needed.add(name)
                node = None if name in self._told else self.model.producers.get(name)
                stack.extend(node.input if node is not None else ())
        return needed


def _require_room(program: ModelProto) -> None:
    """Raise ExportError if a value is larger than ``MOST_BYTES``, as far as sizes are known before a run."""
    try:
        graph = onnx.shape_inference.infer_shapes(without_weights(program), data_prop=True).graph
    except Exception:  # noqa: BLE001 - onnxruntime says what is wrong
        return
    for value in (*graph.value_info, *graph.output):
        kind = value.type.tensor_type
        count = math.prod(dim.dim_value if dim.HasField("dim_value") else 1 for dim in kind.shape.dim)
        if count * (DTYPES[kind.elem_type].itemsize if kind.elem_type in DTYPES else 1) > MOST_BYTES:
            raise ExportError(f"the constant `{value.name}` is too large")


def _is_kernel(tensor: TensorProto) -> bool:
    floats = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)
    return tensor.data_type in floats and math.prod(tensor.dims) > 1
