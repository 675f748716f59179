"""ONNX operators that only move data, or scale it, as ATen operators.

An operator with other parameters than constants, or one that has no ATen form of the same meaning, is not
translated; it then stays opaque.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sympy
import torch
from onnx import NodeProto

from export.read_onnx.constants import Constants
from export.read_onnx.model import attribute
from export.read_onnx.types import DTYPES, ValueType

_aten = torch.ops.aten
# One ATen call: the operator, and the arguments behind the tensor.
Call = tuple[Any, tuple[Any, ...]]
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True)
class Context:
    """What the translation of a node needs to know of the graph.

    Args:
        constants: its constants.
        types: what is known of its values.
        sizes: gives the shape of a value, with a symbol for each open size; None if a size is not known.
    """

    constants: Constants
    types: Mapping[str, ValueType]
    sizes: Callable[[str], Sequence[Any] | None] = lambda name: None

    def shape(self, name: str) -> tuple[int, ...] | None:
        """The shape of a value, if all of its sizes are known."""
        kind = self.types.get(name)
        return None if kind is None else kind.static

    def rank(self, name: str) -> int | None:
        kind = self.types.get(name)
        return None if kind is None else len(kind.shape)

    def numbers(self, node: NodeProto, place: int, name: str) -> list[Any] | None:
        """The numbers of a parameter: the input at ``place``, or the attribute of older opsets.

        Returns:
            None if it is not given.

        Raises:
            KeyError: it is given and not constant.
        """
        if len(node.input) > place and node.input[place]:
            return list(self.constants[node.input[place]].reshape(-1).tolist())
        value = attribute(node, name)
        return None if value is None else list(value) if isinstance(value, list | tuple) else [value]


def data_input(node: NodeProto, constants: Constants) -> str | None:
    """The value whose elements ``node`` moves; None if it is no such operator."""
    if node.op_type not in MOVEMENTS:
        return None
    if node.op_type == "Mul" and node.input[0] in constants:
        return str(node.input[1])
    return str(node.input[0])


def calls_of(node: NodeProto, context: Context) -> list[Call] | None:
    """The ATen calls, one on the result of the other, that do what ``node`` does; None if there are none."""
    try:
        return MOVEMENTS[node.op_type](node, context)
    except KeyError:  # a parameter that is no constant
        return None


def _identity(node: NodeProto, context: Context) -> list[Call] | None:
    return [(_aten.alias.default, ())]


def _reshape(node: NodeProto, context: Context) -> list[Call] | None:
    before, after = context.shape(node.input[0]), context.shape(node.output[0])
    if before is None:
        return _open_reshape(context.sizes(node.input[0]), context.sizes(node.output[0]))
    if after is None and node.op_type == "Reshape":
        after = _asked(node, before, context)
    if after is None or math.prod(before) != math.prod(after):
        return None
    return [(_aten.reshape.default, (list(after),))]


def _open_reshape(before: Sequence[Any] | None, after: Sequence[Any] | None) -> list[Call] | None:
    """A Reshape of open sizes: what it asks for does not matter if its shape is known."""
    if before is None or after is None:
        return None
    difference = sympy.expand(_elements(before) - _elements(after))
    return [(_aten.reshape.default, (list(after),))] if difference == 0 else None


def _elements(shape: Sequence[Any]) -> sympy.Expr:
    return sympy.prod([size if isinstance(size, int) else size.node.expr for size in shape])


def _asked(node: NodeProto, before: tuple[int, ...], context: Context) -> tuple[int, ...] | None:
    """The shape that a Reshape asks for: -1 is what is left, 0 is the size of before."""
    asked = context.constants[node.input[1]].reshape(-1).tolist()
    if 0 in asked[len(before) :] or attribute(node, "allowzero", 0):
        return None
    sizes = [before[place] if size == 0 else size for place, size in enumerate(asked)]
    rest = math.prod(size for size in sizes if size != -1)
    if -1 in sizes:
        if rest == 0 or math.prod(before) % rest:
            return None
        sizes[sizes.index(-1)] = math.prod(before) // rest
    return tuple(sizes)


def _cast(node: NodeProto, context: Context) -> list[Call] | None:
    """A conversion to the type that the value has: exporters write them."""
    kind = context.types.get(node.input[0])
    same = kind is not None and DTYPES.get(attribute(node, "to")) == kind.dtype
    return [(_aten.alias.default, ())] if same else None


def _transpose(node: NodeProto, context: Context) -> list[Call] | None:
    rank = context.rank(node.input[0])
    order = attribute(node, "perm")
    if order is None:
        order = None if rank is None else list(range(rank))[::-1]
    return None if order is None else [(_aten.permute.default, (list(order),))]


def _slice(node: NodeProto, context: Context) -> list[Call] | None:
    rank = context.rank(node.input[0])
    starts, ends = context.numbers(node, 1, "starts"), context.numbers(node, 2, "ends")
    if rank is None or starts is None or ends is None:
        return None
    axes = context.numbers(node, 3, "axes") or list(range(len(starts)))
    steps = context.numbers(node, 4, "steps") or [1] * len(starts)
    if any(step < 1 for step in steps):
        return None
    arguments = zip(axes, starts, ends, steps, strict=True)
    calls: list[Call] = [(_aten.slice.Tensor, (axis % rank, *cut)) for axis, *cut in arguments]
    return calls or _identity(node, context)


def _pad(node: NodeProto, context: Context) -> list[Call] | None:
    rank, pads = context.rank(node.input[0]), context.numbers(node, 1, "pads")
    if rank is None or pads is None:
        return None
    value = context.numbers(node, 2, "value") or [0.0]
    axes = context.numbers(node, 3, "axes") or list(range(rank))
    pairs = {axis % rank: (pads[i], pads[i + len(axes)]) for i, axis in enumerate(axes)}
    # ATen lists the pairs of the last dimension first.
    listed = [amount for axis in range(rank - 1, -1, -1) for amount in pairs.get(axis, (0, 0))]
    mode = attribute(node, "mode", "constant")
    if mode == "constant":
        return [(_aten.constant_pad_nd.default, (listed, value[0]))]
    dim = rank - 2
    kind = {"reflect": "reflection", "edge": "replication"}.get(mode)
    if kind is None or dim not in (1, 2, 3) or any(listed[2 * dim :]) or min(listed) < 0:
        return None
    return [(getattr(_aten, f"{kind}_pad{dim}d").default, (listed[: 2 * dim],))]


def _multiply(node: NodeProto, context: Context) -> list[Call] | None:
    data = data_input(node, context.constants)
    assert data is not None
    other = node.input[1] if data == node.input[0] else node.input[0]
    factor = _number(data, other, context)
    return None if factor is None else [(_aten.mul.Tensor, (factor,))]


def _divide(node: NodeProto, context: Context) -> list[Call] | None:
    divisor = _number(node.input[0], node.input[1], context)
    return None if not divisor else [(_aten.mul.Tensor, (1.0 / divisor,))]


def _number(data: str, name: str, context: Context) -> float | None:
    """The constant number ``name`` that floating-point ``data`` is multiplied with; None if it is none."""
    kind, value = context.types.get(data), context.constants.get(name)
    if kind is None or kind.dtype not in _FLOATS or value is None or value.size != 1:
        return None
    return float(value.reshape(())) if value.ndim <= len(kind.shape) else None


def _expand(node: NodeProto, context: Context) -> list[Call] | None:
    shape = context.shape(node.output[0])
    return None if shape is None else [(_aten.expand.default, (list(shape),))]


def _tile(node: NodeProto, context: Context) -> list[Call] | None:
    repeats = context.numbers(node, 1, "repeats")
    return None if repeats is None else [(_aten.repeat.default, (repeats,))]


MOVEMENTS: dict[str, Callable[[NodeProto, Context], list[Call] | None]] = {
    "Identity": _identity,
    "Cast": _cast,
    **dict.fromkeys(("Reshape", "Unsqueeze", "Squeeze", "Flatten"), _reshape),
    "Transpose": _transpose,
    "Slice": _slice,
    "Pad": _pad,
    "Mul": _multiply,
    "Div": _divide,
    "Expand": _expand,
    "Tile": _tile,
}
