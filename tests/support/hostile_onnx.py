"""ONNX files that are broken, that lie about what they hold, or that ask for more memory than there is."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import onnx.helper as oh
from blur_files import BLUR, blur, image, message, node
from onnx import ModelProto, NodeProto, TensorProto
from onnx.numpy_helper import from_array

# Names of files that the test makes beside each hostile file.
WEIGHTS, OUTSIDE, LINK = "weights.bin", "../outside.bin", "link.bin"
TERA = 1 << 40


class Hostile(NamedTuple):
    """A file. ``refused``: it cannot be harmless."""

    name: str
    content: bytes
    refused: bool = False


def good() -> ModelProto:
    """A small file that is lowered: what the others are made of."""
    return message([blur()])


def hostile() -> Iterator[Hostile]:
    """All hostile files."""
    yield from _no_models(good().SerializeToString())
    for name, model in (*_graphs(), *_types(), *_attributes(), *_sizes(), *_large(), *_versions()):
        yield Hostile(name, model.SerializeToString())
    for name, model in (*_stored(), *_external()):
        yield Hostile(name, model.SerializeToString(), refused=True)


def _no_models(whole: bytes) -> Iterator[Hostile]:
    for part in (1, 10, 50, 90, 99):
        yield Hostile(f"truncated_{part}", whole[: len(whole) * part // 100], refused=True)
    noise = np.random.default_rng(0).bytes(4096)
    yield Hostile("noise", noise, refused=True)
    yield Hostile("noise_inside", whole[:400] + noise[:200] + whole[600:])
    yield Hostile("noise_behind", whole + noise, refused=True)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("model.onnx", whole)
    yield Hostile("zip", archive.getvalue(), refused=True)
    yield Hostile("text", b"this is no model\n", refused=True)
    yield Hostile("empty", b"", refused=True)
    yield Hostile("zeros", bytes(1000), refused=True)


def _graphs() -> Iterator[tuple[str, ModelProto]]:
    """Nodes in a circle, values that are unknown or made twice, and bodies that lack something."""
    yield "cycle", message([node("Add", ["x", "b"], ["a"]), node("Relu", ["a"], ["b"]), blur("b")])
    yield "own_input", message([blur("y")])
    yield (
        "cycle_of_weights",
        message([node("Add", ["v", "k"], ["w"]), node("Neg", ["w"], ["v"]), blur(kernel="w")]),
    )
    yield "unknown_value", message([blur("nowhere")])
    yield "unknown_weight", message([blur(kernel="nowhere")])
    yield "unknown_bias", message([node("Conv", ["x", "k", "nowhere"], ["y"], group=3)])
    yield "unknown_output", message([blur(output="z")])
    yield "made_twice", message([blur(), node("Relu", ["x"], ["y"])])
    yield "made_and_stored", message([node("Relu", ["x"], ["k"]), blur()])
    twice = good()
    twice.graph.initializer.append(from_array(BLUR[:2], "k"))
    yield "stored_twice", twice
    yield "same_inputs", message([blur()], inputs=[image("x"), image("x")])
    yield "no_inputs", message([blur()], inputs=[])
    yield "no_outputs", message([blur()], outputs=[])
    yield "no_nodes", message([])
    yield "conv_of_nothing", message([node("Conv", [], ["y"], group=3)])
    yield "conv_without_weight", message([node("Conv", ["x"], ["y"], group=3)])
    yield "conv_without_output", message([node("Conv", ["x", "k"], [], group=3), node("Relu", ["x"], ["y"])])
    for op in ("Reshape", "Shape", "Slice", "Pad", "Transpose", "Concat", "Squeeze", "Gather"):
        yield f"{op}_of_nothing", message([node(op, [], ["z"]), node(op, ["x"], ["a"]), blur("a")])
    body = oh.make_graph([blur("inner", "z")], "body", [], [image("z")])
    yield "loop", message([node("Loop", [], ["y"], body=body)])
    yield "loop_with_blur", message([blur(output="c"), node("Loop", ["", "", "c"], ["y"], body=body)])
    yield "if_without_branches", message([node("If", ["x"], ["c"]), blur("c")])


def _types() -> Iterator[tuple[str, ModelProto]]:
    """Element types that do not fit, or that do not exist."""
    for kind in (np.int64, np.float64, np.float16, np.bool_, np.complex64):
        yield f"weight_{kind.__name__}", message([blur(kernel="w")], {"w": BLUR.astype(kind)})
    yield "flat_weight", message([blur(kernel="w")], {"w": BLUR.reshape(-1)})
    yield "number_weight", message([blur(kernel="w")], {"w": np.array(1, np.float32)})
    wrong = good()
    wrong.graph.input[0].type.tensor_type.elem_type = 99
    yield "unknown_type_of_input", wrong
    sequence = good()
    sequence.graph.input[0].type.sequence_type.elem_type.tensor_type.elem_type = 1
    yield "sequence_input", sequence
    untyped = good()
    untyped.graph.input[0].ClearField("type")
    yield "input_without_type", untyped
    shapes = {"s": np.array([0.5, np.nan], np.float32)}
    yield "shape_of_fractions", message([node("Reshape", ["x", "s"], ["a"]), blur("a")], shapes)


def _attributes() -> Iterator[tuple[str, ModelProto]]:
    """Attributes of a wrong type, or that contradict the weight."""
    for group in (0, -3, 2, 7, 1 << 62, "three", 1.5, [3]):
        yield f"group_{group}", message([blur(group=group)])
    wrong: dict[str, list[Any]] = {
        "strides": ["two", [0, 0], [-1, -1], [1], [1] * 5, 1.5, [1 << 62, 1]],
        "dilations": ["two", [0, 0], [-1, -1], [1], [1 << 62, 1 << 62]],
        "pads": ["five", [5], [-50] * 4, [1 << 40] * 4, [5] * 3, 0.5],
        "kernel_shape": [[3, 3], "eleven", [-1, 11]],
        "auto_pad": ["NEVER", 3, b"\xff\xfe"],
    }
    for name, values in wrong.items():
        for place, value in enumerate(values):
            yield f"{name}_{place}", message([blur(**{name: value})])
            back = node("ConvTranspose", ["x", "k"], ["y"], **{"group": 3, name: value})
            yield f"transposed_{name}_{place}", message([back])


def _sizes() -> Iterator[tuple[str, ModelProto]]:
    """Sizes of inputs and outputs that are negative, huge, or other ones than those of the weight."""
    for name, shape in {
        "negative": (1, 3, -64, 64),
        "huge": (1, 3, 1 << 20, 1 << 20),
        "largest": (1, 3, (1 << 63) - 1, (1 << 63) - 1),
        "zero": (1, 3, 0, 64),
        "channels": (1, 5, 64, 64),
        "flat": (64,),
    }.items():
        yield f"{name}_input", message([blur()], inputs=[image("x", shape)])
        yield f"{name}_output", message([blur()], outputs=[image("y", shape)])


def _large() -> Iterator[tuple[str, ModelProto]]:
    """Weights, and other constants, that a node makes larger than any memory."""
    far = {"s": np.array([3, 1, 1 << 20, 1 << 19]), "n": np.array([1 << 10] * 4), "one": BLUR[:1]}
    far["half"] = np.array([1, 1, 1 << 20, 1 << 18])
    made: dict[str, list[NodeProto]] = {
        "filled": [node("ConstantOfShape", ["s"], ["w"])],
        "expanded": [node("Slice", ["one", "zz", "ones"], ["c"]), node("Expand", ["c", "s"], ["w"])],
        "tiled": [node("Tile", ["k", "n"], ["w"])],
        "tiled_twice": [node("Tile", ["k", "few"], ["c"]), node("Tile", ["c", "few"], ["w"])],
        "computed": [node("Add", ["half", "half"], ["c"]), node("ConstantOfShape", ["c"], ["w"])],
        "counted": [node("Range", ["zero", "many", "step"], ["c"]), node("Reshape", ["c", "s"], ["w"])],
        "negative": [node("Neg", ["s"], ["c"]), node("ConstantOfShape", ["c"], ["w"])],
    }
    far |= {"zz": np.zeros(4, int), "ones": np.ones(4, int), "few": np.array([1, 1, 100, 100])}
    far |= {
        "zero": np.array(0, np.float32),
        "many": np.array(TERA, np.float32),
        "step": np.array(1, np.float32),
    }
    for name, nodes in made.items():
        yield f"{name}_weight", message([*nodes, blur(kernel="w")], far)
    for name in ("filled", "tiled"):
        shape = [*made[name], node("ReduceMax", ["w"], ["m"], keepdims=0), blur(output="c")]
        yield f"{name}_beside", message([*shape, node("Add", ["c", "m"], ["y"])], far)


def _versions() -> Iterator[tuple[str, ModelProto]]:
    for opset in (0, 9, 9999, -1):
        yield f"opset_{opset}", message([blur()], opset=opset)
    for ir in (0, 99, -1):
        yield f"ir_{ir}", message([blur()], ir=ir)
    without = good()
    del without.opset_import[:]
    yield "no_opset", without


def _stored() -> Iterator[tuple[str, ModelProto]]:
    """Initializers whose numbers are not those that the sizes and the type say."""
    size = BLUR.nbytes
    for name, dims, count in (
        ("short", BLUR.shape, size - 4),
        ("odd", BLUR.shape, size - 1),
        ("long", BLUR.shape, size + 4),
        ("none", BLUR.shape, 0),
        ("negative_dims", (-3, 1, 11, 11), size),
        ("huge_dims", (3, 1, 1 << 20, 1 << 17), size),
        ("overflowing_dims", (1 << 32, 1, 1 << 32, 3), size),
        ("no_dims_of_data", (3, 1, 1 << 20, 1 << 17), 0),
    ):
        model = good()
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.dims[:] = dims
        tensor.raw_data = (BLUR.tobytes() + bytes(4))[:count]
        yield f"stored_{name}", model
    texts, unknown = good(), good()
    texts.graph.initializer[0].ClearField("raw_data")
    texts.graph.initializer[0].string_data.extend([b"text"] * 363)
    yield "stored_texts", texts
    unknown.graph.initializer[0].data_type = 99
    yield "stored_unknown_type", unknown


def _external() -> Iterator[tuple[str, ModelProto]]:
    """Weights in a file that is missing, elsewhere or shorter than they are."""
    places: dict[str, dict[str, object]] = {
        "missing": {"location": "missing.bin"},
        "folder": {"location": "."},
        "nameless": {"location": ""},
        "without_location": {"offset": 0},
        "outside": {"location": OUTSIDE},
        "absolute": {"location": "/dev/zero"},
        "link": {"location": LINK},
        "far": {"location": WEIGHTS, "offset": TERA},
        "cut": {"location": WEIGHTS, "offset": 4},
        "negative_length": {"location": WEIGHTS, "length": -1},
        "negative_offset": {"location": WEIGHTS, "offset": -4},
        "short": {"location": WEIGHTS, "length": 4},
        "long": {"location": WEIGHTS, "length": TERA},
        "text": {"location": WEIGHTS, "offset": "zero"},
    }
    for name, entries in places.items():
        model = good()
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in entries.items():
            tensor.external_data.add(key=key, value=str(value))
        yield f"external_{name}", model
