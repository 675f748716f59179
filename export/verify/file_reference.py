"""An ONNX file in float64, as a function of arrays.

onnxruntime has no convolution in float64 on a CPU. So the reference evaluator of onnx runs a copy of the file
in which every float32 is a float64, with the convolutions of torch. It does not know every operator, and some
of its operators differ from those of onnxruntime. So it counts only where it agrees with the file itself on
the example.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import onnx
import torch
from onnx import AttributeProto, GraphProto, ModelProto, TensorProto, TypeProto
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from export.read_onnx.convolution import convolution_of
from export.read_onnx.model import OnnxModel, bodies
from export.runtime.files import size_of
from export.runtime.session import Array, open_session, run
from export.verify.convolution64 import convolution
from export.verify.file_jumps import Evaluation, FileJumps
from export.verify.reference import LARGEST_BYTES, same_arrays
from export.verify.weight_noise import WeightNoise
from fx_passes.errors import one_line

# An evaluation may take so long on the example. There are eight to seventeen cases.
SECONDS = 5.0
# Functions like exp are approximated in float32. So far an output may be from float64, of its largest number,
# besides what rounding moves it.
_APPROXIMATED = 2.0**-16


class FileReference:
    """A file in float64: arrays in, arrays out. The last result is kept.

    Args:
        model: the file.
        share: the part of what rounding moves an output that is allowed. Less than all of it, where another
            reference decides on the rest.
        decides: whether the file may take decisions that rounding could turn.

    Raises:
        Exception: whatever the evaluator raises on operators that it does not know.
    """

    def __init__(self, model: OnnxModel, share: float = 1.0, *, decides: bool = True) -> None:
        self.names, self.share = list(model.inputs), share
        self.seconds = 0.0  # that the last evaluation took
        proto = in_float64(model)
        self._evaluator = _evaluator(proto)
        self._jumps = FileJumps(model.path, proto, self._noisy) if decides else None
        self._last: tuple[Sequence[Array], list[Array]] | None = None

    def __call__(self, arrays: Sequence[Array]) -> list[Array]:
        """The outputs, for inputs in the order of the file."""
        if self._last is None or not same_arrays(self._last[0], arrays):
            start = time.perf_counter()
            self._last = arrays, self._evaluated(self._evaluator, arrays)
            self.seconds = time.perf_counter() - start
        return self._last[1]

    def decides(self, arrays: Sequence[Array]) -> list[bool]:
        """For each output, whether it jumps if rounding turns a decision of the model."""
        clean = self(arrays)
        return self._jumps.found(arrays, clean) if self._jumps else [False] * len(clean)

    def _noisy(self, proto: ModelProto) -> Evaluation:
        """The evaluation of another version of the file."""
        return partial(self._evaluated, _evaluator(proto))

    def _evaluated(self, evaluator: ReferenceEvaluator, arrays: Sequence[Array]) -> list[Array]:
        feed = {name: _wide(array) for name, array in zip(self.names, arrays, strict=True)}
        with np.errstate(all="ignore"):
            outputs = [np.asarray(output) for output in evaluator.run(None, feed)]
        if all(np.isfinite(array).all() for array in arrays if array.dtype.kind == "f"):
            return outputs
        # Runtimes differ in what they do with an Inf or NaN, in a MaxPool for example: nothing is known.
        return [np.full_like(one, np.nan) if one.dtype.kind == "f" else one for one in outputs]


def _evaluator(proto: ModelProto) -> ReferenceEvaluator:
    return ReferenceEvaluator(proto, new_ops=[_Conv, _ConvTranspose])


def file_reference(model: OnnxModel, example: Sequence[Array], notes: list[str]) -> FileReference | None:
    """The file in float64; None if there is no evaluation that agrees with it.

    Args:
        model: the file.
        example: its inputs, in their order.
        notes: receives the reason if there is none.
    """
    if (size := size_of(model.path)) > LARGEST_BYTES:
        notes.append(_note(f"it has {size / 1e9:.1f} GB, more than {LARGEST_BYTES / 1e9:.1f} GB"))
        return None
    try:
        reference = FileReference(model)
        ideals = reference(example)
        found = run(open_session(model.path, optimized=False), example)
        spreads = WeightNoise(model.path).spread(example)
    except Exception as error:  # noqa: BLE001 - the evaluator, on operators that it may not know
        notes.append(_note(f"{type(error).__name__}: {one_line(error, 160)}"))
        return None
    names = [value.name for value in model.graph.output]
    for name, ideal, output, spread in zip(names, ideals, found, spreads, strict=True):
        if (apart := _disagreement(ideal, output, spread)) is not None:
            notes.append(_note(f"the evaluation differs from the file on the example in `{name}`{apart}"))
            return None
    if reference.seconds > SECONDS:
        notes.append(_note(f"one evaluation takes {reference.seconds:.1f} s"))
        return None
    return reference


def _note(why: str) -> str:
    return f"not compared in float64: {why}; compared with the original file"


def _disagreement(ideal: Array, output: Array, spread: float) -> str | None:
    """How the two differ by more than rounding can explain; None if they do not."""
    if ideal.shape != output.shape:
        return f": shape {list(ideal.shape)} and {list(output.shape)}"
    if output.dtype.kind != "f":
        return None if np.array_equal(ideal, output) else ": values that are no floating-point numbers"
    finite = np.isfinite(output) & np.isfinite(ideal)
    apart = np.abs(ideal.astype(np.float64) - output)[finite].max(initial=0.0)
    scale = np.abs(output[finite]).max(initial=0.0)
    return f" by {apart:.3g}" if apart > spread + _APPROXIMATED * scale else None


def _wide(array: Array) -> Array:
    return array.astype(np.float64) if array.dtype == np.float32 else array


def in_float64(model: OnnxModel) -> ModelProto:
    """A copy of a model in which every float32 is a float64."""
    proto = onnx.load(model.path)
    for function in proto.functions:
        for node in function.node:
            _widen_attributes(node.op_type, node.attribute)
    _widen(proto.graph)
    return proto


def _widen(graph: GraphProto) -> None:
    for tensor in graph.initializer:
        _widen_tensor(tensor)
    for value in (*graph.input, *graph.output, *graph.value_info):
        _widen_type(value.type)
    for node in graph.node:
        _widen_attributes(node.op_type, node.attribute)
        for body in bodies(node):
            _widen(body)


def _widen_attributes(op: str, attributes: Any) -> None:
    for attribute in attributes:
        if attribute.type == AttributeProto.TENSOR:
            _widen_tensor(attribute.t)
        elif op == "Constant" and attribute.name in ("value_float", "value_floats"):
            numbers = [attribute.f] if attribute.name == "value_float" else list(attribute.floats)
            array = np.array(numbers, dtype=np.float64)
            tensor = onnx.numpy_helper.from_array(array if attribute.name == "value_floats" else array[0])
            attribute.CopyFrom(onnx.helper.make_attribute("value", tensor))
        elif attribute.name in ("to", "dtype") and attribute.i == TensorProto.FLOAT:
            attribute.i = TensorProto.DOUBLE

    if op == "ConstantOfShape" and not attributes:  # zeros in float32, where nothing is said
        zero = onnx.numpy_helper.from_array(np.zeros(1))
        attributes.append(onnx.helper.make_attribute("value", zero))


def _widen_tensor(tensor: TensorProto) -> None:
    if tensor.data_type == TensorProto.FLOAT:
        wide = onnx.numpy_helper.to_array(tensor).astype(np.float64)
        tensor.CopyFrom(onnx.numpy_helper.from_array(wide, tensor.name))


def _widen_type(kind: TypeProto) -> None:
    if kind.HasField("tensor_type") and kind.tensor_type.elem_type == TensorProto.FLOAT:
        kind.tensor_type.elem_type = TensorProto.DOUBLE


class _Convolution(OpRun):  # type: ignore[misc]
    """A convolution as torch computes it."""

    op_domain = ""

    def _run(self, x: Array, weight: Array, bias: Array | None = None, **attributes: Any) -> tuple[Array]:
        form = convolution_of(self.onnx_node, weight.shape, x.shape)
        if form is None:
            raise ValueError(f"{self.onnx_node.op_type} with padding that torch does not have")
        given = torch.from_numpy(np.ascontiguousarray(x))
        if form.front:
            given = torch.nn.functional.pad(given, form.front)
        added = None if bias is None else torch.from_numpy(np.array(bias))
        result = convolution(given, torch.from_numpy(np.array(weight)), added, *form.full)
        for dim, start, end in form.back:
            result = result.narrow(dim, start, end - start)
        return (result.numpy(),)


class _Conv(_Convolution):
    pass


class _ConvTranspose(_Convolution):
    pass


_Conv.__name__, _ConvTranspose.__name__ = "Conv", "ConvTranspose"
