"""The columns of the speed benchmark: each way to run a graph, ready to be called and timed.

All of them take and return float32 in main memory, in the form of the library's Python interface:
onnxruntime, PyTorch and OpenCV return new arrays, OpenVINO returns its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import torch
from graphs import Graph, sigma
from onnx import TensorProto, helper
from torch import Tensor, nn

from export.report.result import Report
from export.runtime.arrays import tensor_arrays
from export.runtime.session import Array, open_session, run
from export.runtime.target import parse_target
from export.write_onnx.exporter import stock_export
from fx_passes.graph.torch_internals import pytree

STOCK = "onnxruntime"
OURS = "ours"
OPENVINO, OPENVINO_OURS = "OpenVINO", "OpenVINO, ours"
TORCH, COMPILED = "PyTorch", "torch.compile"
TORCH_OURS, COMPILED_OURS = "PyTorch, lowered", "torch.compile, lowered"
FILTER, SEPARABLE = "OpenCV filter2D", "OpenCV sepFilter2D"
COPY = "x * 2"
# A torchmetrics module counts its calls in an attribute. As a constant it would cause a compilation per call.
torch._dynamo.config.allow_unspec_int_on_nn_module = True  # noqa: SLF001 - there is no public switch

# The largest difference from the stock export that counts as rounding, relative to its largest output.
SAME = 1e-3
# Calls until torch.compile is done: each of the first two may compile for another assumption.
WARM_UP = 3

COLUMNS_OURS = (OURS, OPENVINO_OURS, TORCH_OURS, COMPILED_OURS)
COLUMNS = (
    OURS,
    OPENVINO,
    OPENVINO_OURS,
    TORCH,
    COMPILED,
    TORCH_OURS,
    COMPILED_OURS,
    FILTER,
    SEPARABLE,
    COPY,
)


@dataclass(frozen=True)
class Contestant:
    """One way to run a graph.

    Args:
        run: the function that is timed.
        arrays: converts the result of ``run`` to the outputs of the stock export. None: ``run`` computes
            something else.
        anew: opens a new session and returns a function that runs it. None: there are no sessions, and
            ``run`` is used.
    """

    run: Callable[[], Any]
    arrays: Callable[[Any], list[Array]] | None = list
    anew: Callable[[], Callable[[], Any]] | None = None

    def opened(self) -> Callable[[], Any]:
        """The function to run, in a fresh session if there are sessions."""
        return self.run if self.anew is None else self.anew()


@dataclass(frozen=True)
class Lowered:
    """What the optimizer gives for a graph, each at its own target.

    Args:
        file: for onnxruntime.
        for_openvino: makes the file for OpenVINO.
        in_torch: gives the torch module for ``"eager"`` or ``"compiled"``.
        report: on ``file``.
    """

    file: Path
    for_openvino: Callable[[], Path]
    in_torch: Callable[[Literal["eager", "compiled"]], nn.Module]
    report: Report

    @property
    def changed(self) -> bool:
        """Whether the plan computes any site in another way."""
        return any(choice.proposal for choice in self.report.plan.choices.values())


Factories = dict[str, Callable[[], Contestant]]


def stock(model: nn.Module, inputs: tuple[Any, ...], folder: Path, threads: int) -> tuple[Path, Contestant]:
    """The baseline: the file that ``torch.onnx.export`` writes, in onnxruntime."""
    file = stock_export(model, inputs, folder / "stock.onnx")
    return file, in_runtime("onnxruntime", file, tensor_arrays(inputs), threads)


def others(
    graph: Graph,
    model: nn.Module,
    inputs: tuple[Any, ...],
    file: Path,
    expected: Sequence[Array],
    threads: int,
) -> Factories:
    """By column: a function that makes the contestant. These contestants run the original graph.

    Args:
        file: the stock export.
        expected: the outputs of the stock export.
        threads: the number of threads of each contestant.
    """
    arrays = tensor_arrays(inputs)
    made: Factories = {
        OPENVINO: lambda: in_runtime("openvino", file, arrays, threads),
        TORCH: lambda: pytorch(model, inputs),
        COMPILED: lambda: pytorch(torch.compile(model), inputs),
        COPY: lambda: copy(file.parent, arrays, expected, threads),
    }
    if graph.gaussian is not None:
        taps = graph.gaussian
        made[FILTER] = lambda: opencv(inputs[0], taps, threads, separable=False)
        made[SEPARABLE] = lambda: opencv(inputs[0], taps, threads, separable=True)
    return made


def ours(lowered: Lowered, inputs: tuple[Any, ...], threads: int) -> Factories:
    """By column of ``COLUMNS_OURS``: a function that makes the contestant, which runs the lowered graph."""
    arrays = tensor_arrays(inputs)
    return {
        OURS: lambda: in_runtime("onnxruntime", lowered.file, arrays, threads),
        OPENVINO_OURS: lambda: in_runtime("openvino", lowered.for_openvino(), arrays, threads),
        TORCH_OURS: lambda: pytorch(lowered.in_torch("eager"), inputs),
        COMPILED_OURS: lambda: pytorch(torch.compile(lowered.in_torch("compiled")), inputs),
    }


def in_runtime(runtime: str, file: Path, arrays: Sequence[Array], threads: int) -> Contestant:
    """A file in a session of a runtime."""
    anew = partial(parse_target(runtime, threads).opened, file, arrays)
    return Contestant(anew(), anew=anew)


def pytorch(module: Callable[..., Any], inputs: tuple[Any, ...]) -> Contestant:
    """A torch module, compiled or not, with the threads of ``torch.set_num_threads``."""
    return Contestant(
        lambda: module(*inputs),
        lambda result: [leaf.numpy() for leaf in pytree.tree_leaves(result) if isinstance(leaf, Tensor)],
    )


def opencv(image: Tensor, taps: int, threads: int, *, separable: bool) -> Contestant:
    """OpenCV's filters on the image (1, C, H, W), in OpenCV's layout (H, W, C).

    The border is mirrored without repeating its last pixel, as in torch's ``reflect``.
    """
    import cv2
    from kornia.filters import get_gaussian_kernel1d

    cv2.setNumThreads(threads)
    source = np.ascontiguousarray(image[0].permute(1, 2, 0).numpy())
    window = get_gaussian_kernel1d(taps, sigma(taps))[0].numpy()
    border = cv2.BORDER_REFLECT_101
    square = np.outer(window, window)
    return Contestant(
        (lambda: cv2.sepFilter2D(source, -1, window, window, borderType=border))
        if separable
        else (lambda: cv2.filter2D(source, -1, square, borderType=border)),
        lambda result: [result.transpose(2, 0, 1)[None]],
    )


def copy(folder: Path, arrays: Sequence[Array], expected: Sequence[Array], threads: int) -> Contestant:
    """The lower limit: onnxruntime computes ``x * 2`` for one tensor with as many elements as the output.

    If a graph has several inputs, its output may be small. Then the tensor has the size of the largest input
    or output. This contestant moves as much memory as writing the output needs, and its computation costs
    almost nothing.
    """
    tensors = [*expected, *arrays] if len(arrays) > 1 else expected
    size = max(array.size for array in tensors)
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [size]) for name in "xy")
    two = helper.make_tensor("two", TensorProto.FLOAT, [], [2.0])
    graph = helper.make_graph([helper.make_node("Mul", ["x", "two"], ["y"])], "copy", [x], [y], [two])
    # Every onnxruntime of the last years reads this version of the format.
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "copy.onnx")
    session = open_session(folder / "copy.onnx", threads=threads)
    ones = np.ones(size, np.float32)
    return Contestant(lambda: run(session, [ones]), None)


def prepare(factories: Factories, expected: Sequence[Array]) -> dict[str, Contestant | str]:
    """Each contestant, run once and checked against ``expected``, or the reason why it cannot be used."""
    ready: dict[str, Contestant | str] = {}
    for column, make in factories.items():
        try:
            ready[column] = contestant = make()
            difference = largest_difference(contestant, expected)
            if difference > SAME:
                ready[column] = f"its outputs differ from the stock export by {difference:.1e} of the largest"
        except Exception as error:  # noqa: BLE001 - if one runtime fails, that is its result
            ready[column] = reason(error)
    return ready


def largest_difference(contestant: Contestant, expected: Sequence[Array]) -> float:
    """The largest difference from ``expected``, relative to the largest value of each output; NaN: inf."""
    with torch.no_grad():
        for _ in range(WARM_UP):
            outputs = contestant.run()
    if contestant.arrays is None:
        return 0.0
    worst = 0.0
    for got, wanted in zip(contestant.arrays(outputs), expected, strict=True):
        if got.shape != wanted.shape:
            raise ValueError(f"its output has the shape {got.shape}, the stock export's {wanted.shape}")
        difference = np.abs(got.astype(np.float64) - wanted).max() / max(np.abs(wanted).max(), 1e-30)
        worst = max(worst, float(np.nan_to_num(difference, nan=np.inf)))
    return worst


def reason(error: Exception) -> str:
    """The class and first line of an exception."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"[:500]
