"""A file that is open in OpenVINO, on the CPU and in float32."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import onnx

from export.runtime.session import Array
from fx_passes.errors import ExportError, UsageError


def installed_devices() -> Sequence[str]:
    """The devices of OpenVINO that a file can be made for.

    Raises:
        UsageError: OpenVINO is not installed.
    """
    _core()
    return ("CPU",)


def openvino_version() -> str:
    """Its version."""
    return metadata.version("openvino")


class InOpenVino:
    """A compiled model with one request, which is used again for each run.

    Args:
        request: of the compiled model.
        places: for each input of the compiled model its place among the inputs of the file. OpenVINO leaves
            out an input that nothing reads.
    """

    def __init__(self, request: Any, places: Sequence[int]) -> None:
        self.request, self.places = request, places

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        """All outputs, as arrays of their own.

        Raises:
            ExportError: OpenVINO cannot run the model on these inputs.
        """
        try:
            return [array.copy() for array in self._infer(self._feed(inputs))]
        except Exception as error:  # OpenVINO raises RuntimeError, and what its conversions of arrays raise
            raise ExportError(f"openvino could not run the model: {_said(error)}") from error

    def prepared(self, inputs: Sequence[Array]) -> Callable[[], Any]:
        """A function that runs once on ``inputs``. Inputs and outputs are shared, not copied."""
        feed = self._feed(inputs)
        return lambda: self._infer(feed)

    def _feed(self, inputs: Sequence[Array]) -> list[Array]:
        return [inputs[place] for place in self.places]

    def _infer(self, feed: list[Array]) -> list[Array]:
        return list(self.request.infer(feed, share_inputs=True, share_outputs=True).values())


def in_openvino(file: Path | bytes, *, provider: str, threads: int, folder: Path | None = None) -> InOpenVino:
    """Compile a file anew.

    Raises:
        ExportError: OpenVINO does not accept the file.
    """
    options: dict[str, Any] = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        # Some processors have bfloat16, and OpenVINO would take it: no rounding of float32 is like it.
        "INFERENCE_PRECISION_HINT": "f32",
    }
    try:
        compiled = _core().compile_model(_read(file, folder), provider, options)
        places = {name: place for place, name in enumerate(_input_names(file))}
        used = [next(places[name] for name in port.names if name in places) for port in compiled.inputs]
        return InOpenVino(compiled.create_infer_request(), used)
    except Exception as error:  # as above
        named = "a model in memory" if isinstance(file, bytes) else str(file)
        raise ExportError(f"openvino does not accept {named}: {_said(error)}") from error


@cache
def _core() -> Any:
    try:
        from openvino import Core
    except ImportError as error:
        said = "OpenVINO is not installed: pip install openvino"
        raise UsageError(f"--target openvino: {said}") from error
    return Core()


def _read(file: Path | bytes, folder: Path | None) -> Any:
    """The model that is to be compiled. One in memory finds its external data only from a file beside it."""
    if isinstance(file, Path):
        return _core().read_model(file)
    if folder is None:
        return _core().read_model(file, b"")
    number, name = tempfile.mkstemp(".onnx", dir=folder)
    try:
        with os.fdopen(number, "wb") as beside:
            beside.write(file)
        return _core().read_model(name)
    finally:
        os.unlink(name)


def _input_names(file: Path | bytes) -> list[str]:
    """The names of the inputs of a file, without those that have a value in it."""
    if isinstance(file, bytes):
        graph = onnx.load_model_from_string(file).graph
    else:
        graph = onnx.load_model(file, load_external_data=False).graph
    stored = {tensor.name for tensor in graph.initializer}
    return [value.name for value in graph.input if value.name not in stored]


def _said(error: Exception) -> str:
    """The lines of a message of OpenVINO that are not about its own source, as one line."""
    lines = [line.strip() for line in str(error).splitlines()]
    own = ("Exception from ", "Check '", "FrontEnd API failed")
    said = " ".join(line for line in lines if line and not line.startswith(own))
    return (said or f"{type(error).__name__}, without a message")[:300]
