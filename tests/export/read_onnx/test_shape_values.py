"""Sizes that a graph reads from a shape: constants, even if other sizes of that shape are open."""

from __future__ import annotations

import numpy as np
import onnx.helper as oh
import pytest
from onnx import NodeProto, TensorProto
from onnx_graphs import model_of, small_integers

from export.read_onnx.constants import Constants
from export.read_onnx.shape_values import add_shapes
from export.read_onnx.sites import analyse
from export.read_onnx.types import value_types
from export.runtime.session import Array

SIZES: tuple[int, list[int | str | None]] = (TensorProto.FLOAT, ["n", 3, "h", 7])
STORED = {
    "one": np.array(1),
    "known": np.array([3, 1, -1]),
    "open": np.array([1, 0]),
    "from": np.array([-1]),
    "to": np.array([-5]),
    "by": np.array([-2]),
    "axis": np.array([0]),
    "last": np.array([2**60]),
}


def read(*inputs: str, op: str = "Gather", result: str = "y") -> NodeProto:
    return oh.make_node(op, ["s", *inputs], [result])


CASES: dict[str, tuple[list[NodeProto], Array | None]] = {
    "one size": ([read("one")], np.array(3)),
    "several sizes": ([read("known")], np.array([7, 3, 7])),
    "an open size among them": ([read("open")], None),
    "a slice backwards": ([read("from", "to", "axis", "by", op="Slice")], np.array([7, 3])),
    "an open size in a slice": ([read("axis", "last", op="Slice")], None),
    "what is computed from it": (
        [read("known", result="k"), oh.make_node("Neg", ["k"], ["y"])],
        np.array([-7, -3, -7]),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_read_from_a_shape(name: str) -> None:
    """The numbers are those that onnxruntime would read; an open size makes it no constant."""
    nodes, expected = CASES[name]
    model = model_of([oh.make_node("Shape", ["x"], ["s"]), *nodes], {"x": SIZES}, STORED)
    constants = Constants(model)
    assert "y" not in constants
    add_shapes(constants, value_types(model, ["x"]))
    found = constants.get("y")
    if expected is None:
        assert found is None
    else:
        assert found is not None
        np.testing.assert_array_equal(found, expected)


def test_a_part_of_a_shape() -> None:
    """Since opset 15, Shape itself may give a part."""
    shape = oh.make_node("Shape", ["x"], ["y"], start=-1)
    model = model_of([shape], {"x": SIZES})
    constants = Constants(model)
    add_shapes(constants, value_types(model, ["x"]))
    np.testing.assert_array_equal(constants["y"], [7])


def test_sides_that_are_padded_differently_where_a_size_is_open() -> None:
    """torch has no such padding. What the axes do is the same at every length, so it is taken in."""
    weight = np.repeat(small_integers(1, 1, 3, 3), 3, 0)
    conv = oh.make_node("Conv", ["x", "w"], ["y"], group=3, pads=[0, 0, 1, 1])
    model = model_of([conv], {"x": (TensorProto.FLOAT, [1, 3, "h", 8])}, {"w": weight})
    ((site,), refusals) = analyse(model).sites()
    assert not refusals
    assert [(axis.shift, axis.extent) for axis in site.resample.axes] == [(0, -2), (0, -2)]
    assert site.resample.in_shape == (1, 3, None, 8)
