"""Constants that the exporter's optimizer takes for 0 or 1, kept what they are.

onnxscript's rules drop ``x + c`` for ``|c| <= 1e-8`` and ``x * c`` for ``|c - 1| <= 1e-5``: so a division by
``sum + 1e-8`` becomes one by zero. While it runs, such constants are inputs of the graph, whose values it
does not know. (Those in the bodies of If and Loop are not looked for.)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import onnx_ir as ir

# What onnxscript calls equal to 0 and to 1, and a little more.
_ABSOLUTE, _RELATIVE = 2e-8, 2e-5
_OPERATORS = ("Add", "Sub", "Mul", "Div")


@contextmanager
def exact_constants(model: ir.Model) -> Iterator[None]:
    """Within it, ``model`` may be optimized, in place; the constants are back at the end."""
    graph = model.graph
    hidden: dict[str, tuple[ir.Value, ir.TensorProtocol]] = {}
    for node, place, tensor in _nearly_neutral(graph):
        value = node.inputs[place]
        assert value is not None and value.name is not None
        if value.name not in hidden:
            shape, kind = ir.Shape(tensor.numpy().shape), ir.TensorType(tensor.dtype)
            stand_in = ir.Value(name=f"{value.name}_exact", shape=shape, type=kind)
            hidden[value.name] = (stand_in, tensor)
            graph.inputs.append(stand_in)
        node.replace_input_with(place, hidden[value.name][0])
    yield
    for stand_in, tensor in hidden.values():
        graph.inputs.remove(stand_in)
        if stand_in.uses():
            stand_in.const_value = tensor
            graph.register_initializer(stand_in)


def _nearly_neutral(graph: ir.Graph) -> list[tuple[ir.Node, int, ir.TensorProtocol]]:
    """Operands to hide: node, place, what is there. Where nothing depends on an input, all is folded before
    a rule is tried."""
    found = []
    computed: set[ir.Value | None] = set(graph.inputs)
    for node in graph:
        if not computed.isdisjoint(node.inputs):
            computed.update(node.outputs)
            for place, value in enumerate(node.inputs if node.op_type in _OPERATORS else ()):
                tensor = None if value is None else ir.convenience.get_const_tensor(value)
                if tensor is not None and _is_nearly_neutral(tensor):
                    found.append((node, place, tensor))
    return found


def _is_nearly_neutral(tensor: ir.TensorProtocol) -> bool:
    if tensor.size != 1 or not tensor.dtype.is_floating_point():
        return False
    number = float(tensor.numpy().reshape(-1)[0])
    return 0 < abs(number) <= _ABSOLUTE or 0 < abs(number - 1) <= _RELATIVE
