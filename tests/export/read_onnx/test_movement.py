"""Operators that move data, as ATen calls: the same elements as onnxruntime gives, and what is left alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx.helper as oh
import pytest
import torch
from onnx import TensorProto
from onnx_graphs import computed, model_of, small_integers

from export.read_onnx.constants import Constants
from export.read_onnx.model import OnnxModel
from export.read_onnx.movement import MOVEMENTS, Call, Context, calls_of, data_input
from export.read_onnx.types import value_types
from export.runtime.session import Array

OPSETS = (11, 13, 18, 21)
END = np.iinfo(np.int64).max
X = small_integers(2, 3, 4, 5)
# An operator, its parameters behind the data, and its attributes.
Case = tuple[str, list[Any], dict[str, Any]]


def ints(*numbers: int) -> Array:
    return np.array(numbers, np.int64)


def cases(opset: int) -> Iterator[Case]:
    """Every operator, in each way that its parameters can be given at ``opset``."""
    yield "Identity", [], {}
    yield "Cast", [], {"to": TensorProto.FLOAT}
    for shape in ((6, -1), (0, 0, 20), (0, -1, 2, 5), (2, 3, 4, 5, 1), (-1,)):
        yield "Reshape", [ints(*shape)], {}
    if opset >= 14:
        yield "Reshape", [ints(2, 60)], {"allowzero": 1}
    for axes in ([0], [1, -1], [-2]):
        yield from _axes("Unsqueeze", axes, opset)
    for axis in (0, 1, 2, -1, 4):
        yield "Flatten", [], {"axis": axis}
    yield "Transpose", [], {}
    yield "Transpose", [], {"perm": [0, 2, 3, 1]}
    yield "Transpose", [], {"perm": [3, 1, 0, 2]}
    yield from _slices()
    yield from _pads(opset)
    for factor in (np.float32(0.5), np.array([-3.0], np.float32), np.full((1, 1, 1), 7, np.float32)):
        yield "Mul", [np.asarray(factor)], {}
    # A power of two: one divided by it is exact, so that the product is the quotient.
    for divisor in (np.float32(4.0), np.array([[-0.125]], np.float32)):
        yield "Div", [np.asarray(divisor)], {}
    for shape in ((2, 3, 4, 5), (7, 2, 3, 4, 5), (1,), (4, 1)):
        yield "Expand", [ints(*shape)], {}
    yield "Tile", [ints(1, 2, 3, 1)], {}
    yield "Tile", [ints(1, 1, 1, 1)], {}


def _axes(op: str, axes: list[int], opset: int) -> Iterator[Case]:
    """Axes are an attribute before opset 13, and an input since."""
    yield (op, [], {"axes": axes}) if opset < 13 else (op, [ints(*axes)], {})


def _slices() -> Iterator[Case]:
    for starts, ends, *rest in (
        ([1], [3]),
        ([0, 1], [2, END]),
        ([-3], [-1], [2]),
        ([1, -2], [100, END], [-2, -1]),
        ([-100], [2], [3]),
        ([0, 1], [END, END], [3, 2], [2, 3]),
        ([4], [1], [3]),
        ([], [], []),
    ):
        yield "Slice", [ints(*starts), ints(*ends), *(ints(*one) for one in rest)], {}
    yield "Slice", [np.array([1], np.int32), np.array([3], np.int32), np.array([-1], np.int32)], {}


def _pads(opset: int) -> Iterator[Case]:
    """Amounts in front of all axes, then behind all."""
    frame, crop = ints(0, 0, 1, 2, 0, 0, 3, 0), ints(0, 1, -1, 2, 1, 0, 1, -2)
    yield "Pad", [frame], {}
    yield "Pad", [crop], {"mode": "constant"}
    yield "Pad", [frame, np.float32(1.5)], {}
    for mode in ("reflect", "edge"):
        yield "Pad", [frame], {"mode": mode}
    if opset >= 18:
        yield "Pad", [ints(1, -1, 2, 0), np.float32(0), ints(-1, 2)], {}
        yield "Pad", [ints(1, 2, 0, 3), None, ints(3, -2)], {"mode": "reflect"}


def built(case: Case, opset: int, data: Mapping[str, Array], *, left: bool = False) -> OnnxModel:
    """A model of one node. ``left``: the data is the second operand."""
    op, parameters, attributes = case
    stored = {f"p{i}": value for i, value in enumerate(parameters) if value is not None}
    names = [f"p{i}" if value is not None else "" for i, value in enumerate(parameters)]
    operands = [*names, *data] if left else [*data, *names]
    return model_of([oh.make_node(op, operands, ["y"], **attributes)], data, stored, opset=opset)


def translated(model: OnnxModel) -> list[Call] | None:
    """What the node of a model becomes; None if it stays opaque."""
    (node,), constants = model.graph.node, Constants(model)
    if data_input(node, constants) not in model.inputs:
        return None
    return calls_of(node, Context(constants, value_types(model, ["x", "y"])))


def require_equal(model: OnnxModel, x: Array) -> None:
    """The calls do what onnxruntime does."""
    calls = translated(model)
    assert calls
    result = torch.from_numpy(x)
    for op, arguments in calls:
        result = op(result, *arguments)
    (expected,) = computed(model, x)
    assert result.numpy().dtype == expected.dtype
    np.testing.assert_array_equal(result.numpy(), expected)


def test_every_operator_is_tested() -> None:
    """At each opset there is a case of each operator; Squeeze has data of its own."""
    for opset in OPSETS:
        assert {op for op, *_ in cases(opset)} | {"Squeeze"} == set(MOVEMENTS)


@pytest.mark.parametrize("opset", OPSETS)
def test_the_elements_of_onnxruntime(opset: int) -> None:
    """Each operator with each kind of parameters."""
    for case in cases(opset):
        require_equal(built(case, opset, {"x": X}), X)


@pytest.mark.parametrize("opset", OPSETS)
def test_squeeze(opset: int) -> None:
    """Stated axes, also from behind; and all axes of size 1, if none is stated."""
    x = X.reshape(1, 2, 1, 60, 1)
    for case in [*_axes("Squeeze", [0], opset), *_axes("Squeeze", [-1, 2], opset), ("Squeeze", [], {})]:
        require_equal(built(case, opset, {"x": x}), x)


@pytest.mark.parametrize("opset", OPSETS)
def test_a_factor_on_the_left(opset: int) -> None:
    """The order of the operands of a product does not matter."""
    require_equal(built(("Mul", [np.float32(0.3)], {}), opset, {"x": X}, left=True), X)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int64, np.int32])
def test_other_types(dtype: type[np.generic]) -> None:
    """A movement keeps the type; a product too, if it is one of floating-point numbers."""
    x = X.astype(dtype)
    moved: list[Case] = [
        ("Reshape", [ints(-1)], {}),
        ("Slice", [ints(1), ints(END), ints(-1)], {}),
        ("Tile", [ints(1, 2, 1, 1)], {}),
    ]
    if dtype is not np.float16:  # onnxruntime has no Pad of float16
        moved.append(("Pad", [ints(0, 0, 1, 1, 0, 0, 2, 2)], {}))
    if np.issubdtype(dtype, np.floating):
        moved.append(("Mul", [np.array(0.3, dtype)], {}))
    for case in moved:
        require_equal(built(case, 18, {"x": x}), x)


@pytest.mark.parametrize("dim", [1, 2])
@pytest.mark.parametrize("mode", ["reflect", "edge"])
def test_modes_of_padding(mode: str, dim: int) -> None:
    """Reflections and repeated edges of the axes of a picture or a line of sound."""
    x = small_integers(2, 3, 4, 5)[..., : 4 - 3 * (dim == 1)].reshape(2, 3, *(4, 4)[:dim])
    require_equal(
        built(("Pad", [ints(0, 0, *(2, 3)[:dim], 0, 0, *(1, 0)[:dim])], {"mode": mode}), 13, {"x": x}), x
    )


OPAQUE: dict[str, Case] = {
    "backwards": ("Slice", [ints(-1), ints(-END), ints(2), ints(-1)], {}),
    "wrap": ("Pad", [ints(0, 0, 1, 1, 0, 0, 1, 1)], {"mode": "wrap"}),
    "reflected channels": ("Pad", [ints(0, 1, 1, 1, 0, 0, 1, 1)], {"mode": "reflect"}),
    "cropped edges": ("Pad", [ints(0, 0, 1, -1, 0, 0, 1, 1)], {"mode": "edge"}),
    "factors of channels": ("Mul", [small_integers(3, 1, 1)], {}),
    "a factor that adds an axis": ("Mul", [np.ones((1, 1, 1, 1, 1), np.float32)], {}),
    "divided by zero": ("Div", [np.float32(0.0)], {}),
    "divided by channels": ("Div", [np.ones((3, 1, 1), np.float32)], {}),
}


@pytest.mark.parametrize("name", OPAQUE)
def test_what_stays_opaque(name: str) -> None:
    """torch has no such operator, or it would not only move or scale elements."""
    assert translated(built(OPAQUE[name], 21, {"x": X})) is None


@pytest.mark.parametrize("op", ["Mul", "Div"])
def test_integers_are_not_scaled(op: str) -> None:
    """A quotient of integers is rounded, and a product of them may overflow."""
    assert translated(built((op, [np.array(2)], {}), 18, {"x": X.astype(np.int64)})) is None


def test_a_quotient_with_the_data_below() -> None:
    """A constant divided by the data is no product."""
    assert translated(built(("Div", [np.float32(2.0)], {}), 18, {"x": X}, left=True)) is None


@pytest.mark.parametrize(
    ("op", "parameters"),
    [
        ("Slice", [ints(0), ints(2)]),
        ("Pad", [ints(0, 0, 1, 1, 0, 0, 1, 1)]),
        ("Tile", [ints(1, 1, 2, 1)]),
        ("Expand", [ints(7, 1, 1, 1, 1)]),
        ("Reshape", [ints(6, 20)]),
        ("Mul", [np.float32(2.0)]),
        ("Div", [np.float32(2.0)]),
    ],
)
def test_parameters_of_the_user(op: str, parameters: list[Array]) -> None:
    """A parameter that is an input, also one with a default, is not known."""
    model = built((op, parameters, {}), 18, {"x": X})
    for tensor in model.graph.initializer:
        value = oh.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        model.graph.input.append(value)
    assert translated(model) is None


def test_other_operators() -> None:
    """They move no data."""
    assert (
        data_input(oh.make_node("Relu", ["x"], ["y"]), Constants(built(("Identity", [], {}), 18, {"x": X})))
        is None
    )
