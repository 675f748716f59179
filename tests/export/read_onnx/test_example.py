"""Example inputs of a file: those of the user in their places, others made; a fault says what to type."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx.helper as oh
import pytest
from onnx import TensorProto
from onnx_graphs import model_of, small_integers

from export.read_onnx.example import example_arrays, shapes_at
from export.read_onnx.model import OnnxModel
from export.runtime.session import Array
from fx_passes.errors import ExportError, UsageError

PICTURE, MASK = small_integers(1, 3, 8, 8), small_integers(1, 8)
Given = list[tuple[str | None, Array]]


def two_inputs(sizes: tuple[int | str | None, ...] = (1, 3, 8, 8)) -> OnnxModel:
    """A model of a picture and a mask."""
    nodes = [oh.make_node("Relu", ["picture"], ["r"]), oh.make_node("Mul", ["r", "mask"], ["y"])]
    inputs = {"picture": (TensorProto.FLOAT, sizes), "mask": (TensorProto.FLOAT, (1, 8))}
    return model_of(nodes, inputs, path=Path("two.onnx"))


@pytest.mark.parametrize(
    "given",
    [
        [(None, PICTURE), (None, MASK)],
        [("picture", PICTURE), ("mask", MASK)],
        [("mask", MASK), ("picture", PICTURE)],
        [(None, PICTURE), ("mask", MASK)],
    ],
    ids=["by order", "by name", "in another order", "by both"],
)
def test_arrays_of_the_user(given: Given) -> None:
    """All in their order, or each with its name: each gets to its input."""
    picture, mask = example_arrays(two_inputs(), given)
    np.testing.assert_array_equal(picture, PICTURE)
    np.testing.assert_array_equal(mask, MASK)


@pytest.mark.parametrize("given", [[], [("mask", MASK)]], ids=["none", "one"])
def test_arrays_that_are_made(given: Given) -> None:
    """If the sizes are known, others are made: the same each time, and not all alike."""
    picture, mask = example_arrays(two_inputs(), given)
    assert (picture.shape, mask.shape) == ((1, 3, 8, 8), (1, 8))
    assert picture.dtype == mask.dtype == np.float32
    assert len(np.unique(picture)) > 1
    np.testing.assert_array_equal(picture, example_arrays(two_inputs(), given)[0])


@pytest.mark.parametrize(
    "dtype", [np.float16, np.float64, np.int8, np.uint8, np.int16, np.int32, np.int64, np.bool_]
)
def test_types(dtype: type[np.generic]) -> None:
    """What is made has the type of the input. What is given gets it, with its numbers."""
    model = model_of([], {"x": np.zeros((2, 3), dtype)})
    (made,) = example_arrays(model, [])
    assert made.dtype == dtype
    assert made.shape == (2, 3)
    numbers = np.array([[0, 1, 1], [1, 0, 1]], np.int64)
    (given,) = example_arrays(model, [("x", numbers)])
    assert given.dtype == dtype
    np.testing.assert_array_equal(given, numbers.astype(dtype))


def test_sizes_for_integers() -> None:
    """Sizes on the command line give floating-point numbers; for integers, only the sizes are taken."""
    model = model_of([], {"x": (TensorProto.INT64, ["n"])})
    (array,) = example_arrays(model, [(None, np.full(5, 0.5))])
    assert array.dtype == np.int64
    assert array.shape == (5,)


def test_a_default_is_no_input() -> None:
    """An input with an initializer need not be given."""
    model = model_of([], {"x": PICTURE, "w": MASK}, {"w": MASK})
    assert len(example_arrays(model, [(None, PICTURE)])) == 1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([("image", PICTURE)], "two.onnx has no input `image`; its inputs are: picture, mask"),
        ([(None, PICTURE)], r"two.onnx takes 2 inputs \(picture, mask\), got 1"),
        ([(None, PICTURE)] * 3, r"two.onnx takes 2 inputs \(picture, mask\), got 3"),
        (
            [("picture", PICTURE), ("mask", MASK), (None, MASK)],
            "has no input `.*; its inputs are: picture, mask",
        ),
        ([("mask", MASK[:, :4])], "input `mask` of two.onnx has sizes 1x8, got 1x4"),
        ([("mask", MASK[0])], "input `mask` of two.onnx has sizes 1x8, got 8"),
        ([("mask", PICTURE)], "input `mask` of two.onnx has sizes 1x8, got 1x3x8x8"),
    ],
)
def test_what_does_not_fit(given: Given, said: str) -> None:
    """The message names the file, the inputs that there are, and the sizes."""
    with pytest.raises(UsageError, match=said) as error:
        example_arrays(two_inputs(), given)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        (("batch", 3, 8, 8), r"\(batchx3x8x8\); give them: --input picture=1x3x8x8$"),
        ((1, 3, "h", None), r"\(1x3xhx\?\); give them: --input picture=1x3x1x1$"),
    ],
)
def test_open_sizes(sizes: tuple[int | str | None, ...], said: str) -> None:
    """They have to be given: the message is what to type. An array gives them."""
    with pytest.raises(UsageError, match=f"input `picture` of two.onnx has open sizes {said}"):
        example_arrays(two_inputs(sizes), [])
    assert example_arrays(two_inputs(sizes), [("picture", PICTURE)])[0].shape == PICTURE.shape
    wrong = small_integers(*(5 if isinstance(size, int) else 1 for size in sizes))
    with pytest.raises(UsageError, match=r"input `picture` of two.onnx has sizes .*, got"):
        example_arrays(two_inputs(sizes), [("picture", wrong)])


def test_no_sizes_at_all() -> None:
    """An input of any rank takes any array; if there is none, the message shows what one looks like."""
    model = model_of([], {"x": (TensorProto.FLOAT, None)})
    with pytest.raises(
        UsageError, match=r"input `x` of model.onnx states no sizes; .*--input x=1x3x224x224$"
    ):
        example_arrays(model, [])
    assert example_arrays(model, [(None, PICTURE)])[0] is PICTURE


def test_a_number() -> None:
    """An input without dimensions is made like any other."""
    (array,) = example_arrays(model_of([], {"x": (TensorProto.FLOAT, ())}), [])
    assert array.shape == ()
    assert array.dtype == np.float32


@pytest.mark.parametrize("kind", ["texts", "sequence"])
def test_what_cannot_be_given(kind: str) -> None:
    """Texts and sequences are no tensors of numbers."""
    model = model_of([], {"x": (TensorProto.STRING, [1])})
    if kind == "sequence":
        model.graph.input[0].CopyFrom(oh.make_tensor_sequence_value_info("x", TensorProto.FLOAT, [1]))
    with pytest.raises(UsageError, match=r"input `x` of model.onnx is no tensor of numbers"):
        example_arrays(model, [])


def test_shapes_in_a_run() -> None:
    """Values of the graph and inputs, for the sizes of the example; also one that is asked for twice."""
    model = two_inputs(("n", 3, "h", 8))
    arrays = [small_integers(2, 3, 5, 8), MASK]
    shapes = {"picture": (2, 3, 5, 8), "mask": (1, 8)}
    assert shapes_at(model, arrays, ["mask"]) == shapes
    assert shapes_at(model, arrays, ["r", "y", "r", "picture"]) == {
        **shapes,
        "r": (2, 3, 5, 8),
        "y": (2, 3, 5, 8),
    }


def test_a_run_that_fails() -> None:
    """onnxruntime says why."""
    with pytest.raises(ExportError, match="onnxruntime could not run"):
        shapes_at(two_inputs(("n", 3, "h", "w")), [small_integers(1, 3, 5, 5), MASK], ["y"])
