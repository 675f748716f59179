"""Adds the bias behind a convolution whose weight is an Expand.

Before:  Conv(x, Expand(kernel), bias)        after:  Add(Conv(x, Expand(kernel)), bias (C, 1, 1))

``quantize_dynamic`` of onnxruntime takes a convolution with a bias only if its weight is an initializer. It
takes any convolution without a bias. When a session starts, onnxruntime computes the Expand, and then joins
convolution and bias again. The bits are the same: a bias is added when the sum is complete. That is true in
float32, the type that is quantized. Convolutions in float16 are computed in float32, and would be rounded
once more.
"""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir


def separate_biases(model: ir.Model, expansions: Collection[ir.Node]) -> None:
    """Add the constant biases behind the convolutions that ``expansions`` end in, in place.

    Args:
        expansions: the nodes from the Expand of a kernel down to the weight of a convolution.
    """
    reshaped: dict[tuple[ir.Value, int], ir.Value] = {}
    for conv in list(ir.traversal.RecursiveGraphIterator(model.graph)):
        # A ConvTranspose is left as it is by those who quantise, and onnxruntime would not join it again.
        if conv.op_type == "Conv" and len(conv.inputs) == 3:
            weight, bias = conv.inputs[1:]
            if weight is not None and bias is not None and weight.producer() in expansions:
                _separate(model.graph, conv, bias, reshaped)
    for (bias, _), value in reshaped.items():
        name = str(bias.name)
        if not bias.uses() and not bias.is_graph_output() and model.graph.initializers.get(name) is bias:
            model.graph.initializers.pop(name)
            value.name = name


def _separate(
    main: ir.Graph, conv: ir.Node, bias: ir.Value, reshaped: dict[tuple[ir.Value, int], ir.Value]
) -> None:
    graph, output, numbers = conv.graph, conv.outputs[0], ir.convenience.get_const_tensor(bias)
    if not isinstance(graph, ir.Graph) or numbers is None or output.shape is None:
        return
    if numbers.dtype != ir.DataType.FLOAT:
        return
    rank = len(output.shape)
    if (bias, rank) not in reshaped:
        array, wide = numbers.numpy().reshape(-1, *[1] * (rank - 2)), f"{bias.name}_{rank}d"
        tensor, kind = ir.tensor(array, name=wide), ir.TensorType(ir.DataType.FLOAT)
        added = ir.Value(name=wide, shape=ir.Shape(array.shape), type=kind, const_value=tensor)
        main.register_initializer(added)
        reshaped[bias, rank] = added
    name = conv.name or output.name
    inner = ir.Value(name=f"{output.name}_without_bias", shape=output.shape, type=output.type)
    result = ir.Value(name=output.name, shape=output.shape, type=output.type)
    alone = ir.Node(
        conv.domain, "Conv", conv.inputs[:2], conv.attributes.values(), outputs=[inner], name=conv.name
    )
    add = ir.Node("", "Add", [inner, reshaped[bias, rank]], outputs=[result], name=f"{name}_bias")
    ir.convenience.replace_nodes_and_values(graph, conv, [conv], [alone, add], [output], [result])
