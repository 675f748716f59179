"""Where the weight of a convolution comes from: a tensor of the model, or a computation."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.fx import Node

from fx_passes.find.calls.call import ConvCall
from fx_passes.find.construction import layout_shape
from fx_passes.graph.constants import fold, static_value
from fx_passes.graph.operators import LAYOUT, base_name, first_argument, is_operator, transparent_input
from fx_passes.graph.tensors import State, storage_key
from fx_passes.graph.torch_internals import ConvNd
from fx_passes.records import ConvGeometry, WeightOrigin


def way_to_source(node: Node) -> list[Node]:
    """``node`` and what is behind it through operators that pass elements on (``to``, ``detach``, ...)."""
    way = [node]
    while (before := transparent_input(way[-1])) is not None:
        way.append(before)
    return way


def direct_node(node: Node) -> Node:
    """The first node of which ``node`` has the elements: a ``get_attr``, or where they are computed."""
    return way_to_source(node)[-1]


def tensor_of(value: Node | str | None, state: State) -> Tensor | None:
    """The parameter or buffer that is passed as ``value``; None where it is computed from one."""
    if isinstance(value, Node):
        return state.read(direct_node(value))
    return None if value is None else state.tensors.get(value)


def layout_source(node: Node, state: State) -> Node | None:
    """The ``get_attr`` node whose elements ``node`` holds, moved or repeated but not computed; else None."""
    while is_operator(node) and base_name(node) in LAYOUT:
        before = first_argument(node)
        if not isinstance(before, Node):
            return None
        node = before
    return None if state.read(node) is None else node


def weight_origin(weight: Node | str, state: State) -> WeightOrigin:
    """The parameter or buffer whose elements are the weight; else ``computed``."""
    name: str | None = weight if isinstance(weight, str) else None
    if isinstance(weight, Node) and (source := layout_source(weight, state)) is not None:
        name = str(source.target)
    if name not in state.tensors or nn.parameter.is_lazy(state.tensors[name]):
        return WeightOrigin("computed")
    others = tuple(n for n in state.names[storage_key(state.tensors[name])] if n != name)
    return WeightOrigin(state.kinds[name], name, others)


def weight_shape(call: ConvCall, state: State) -> tuple[int, ...]:
    """Shape of the weight, as torch lays it out.

    Raises:
        NotConstant: it is computed, and no example inputs tell its shape.
    """
    tensor = tensor_of(call.weight, state)
    if tensor is not None and not nn.parameter.is_lazy(tensor):
        return tuple(tensor.shape)
    if isinstance(call.weight, str):
        module = state.graph_module.get_submodule(str(call.node.target))
        assert isinstance(module, ConvNd)
        return expected_shape(module)
    value = call.weight.meta.get("val")
    if isinstance(value, Tensor):
        return tuple(int(size) for size in value.shape)
    shape = layout_shape(call.weight, call.node, state)
    return shape or tuple(fold(call.weight, call.node, state).shape)


def expected_shape(module: ConvNd) -> tuple[int, ...]:
    """The shape that the weight of a torch convolution has by its channels and groups."""
    rows = (module.out_channels, module.in_channels // module.groups)
    if module.transposed:
        rows = (module.in_channels, module.out_channels // module.groups)
    return (*rows, *module.kernel_size)


def geometry(call: ConvCall, groups: int, shape: tuple[int, ...]) -> ConvGeometry:
    """The geometry of a call whose weight has ``shape``.

    Raises:
        NotConstant: an argument is computed from a shape that is not known.
    """
    arguments = static_value(call.arguments)
    padding = arguments.get("padding", 0)
    transposed = call.op.startswith("conv_transpose")
    first, second = shape[0], shape[1] * groups
    return ConvGeometry(
        op=call.op,
        in_channels=first if transposed else second,
        out_channels=second if transposed else first,
        groups=groups,
        kernel=shape[2:],
        stride=_per_dim(arguments["stride"], call.dim),
        padding=padding if isinstance(padding, str) else _per_dim(padding, call.dim),
        dilation=_per_dim(arguments["dilation"], call.dim),
        output_padding=_per_dim(arguments.get("output_padding", 0), call.dim),
        padding_mode=call.padding_mode,
    )


def _per_dim(value: Any, dim: int) -> tuple[int, ...]:
    values = tuple(value) if isinstance(value, list | tuple) else (value,)
    return values * dim if len(values) == 1 else values
