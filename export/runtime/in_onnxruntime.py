"""A file that is open in onnxruntime, on any of its providers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import onnxruntime as ort

from export.runtime.session import Array, open_session, run

# The devices that hold the tensors of a provider, by the names that OrtValue knows. Other providers take and
# return arrays in main memory.
DEVICES = {
    "CUDAExecutionProvider": "cuda",
    "TensorrtExecutionProvider": "cuda",
    "NvTensorRTRTXExecutionProvider": "cuda",
    "DmlExecutionProvider": "dml",
    "CANNExecutionProvider": "cann",
}


def installed_providers() -> Sequence[str]:
    """The providers of the onnxruntime that is installed."""
    return ort.get_available_providers()


def onnxruntime_version() -> str:
    """Its version. The name of the package differs between builds."""
    return ort.__version__


@dataclass(frozen=True)
class InOnnxruntime:
    """A session, and the device that holds its tensors; None: they are in main memory."""

    session: ort.InferenceSession
    device: str | None = None

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        """All outputs, in main memory."""
        return run(self.session, inputs)

    def prepared(self, inputs: Sequence[Array]) -> Callable[[], Any]:
        """A function that runs once on ``inputs``."""
        if self.device is None:
            return partial(run, self.session, inputs)
        return bound(self.session, inputs, self.device)


def in_onnxruntime(
    file: Path | bytes, *, provider: str, threads: int, folder: Path | None = None
) -> InOnnxruntime:
    """Open a file in a session of its own.

    Raises:
        ExportError: onnxruntime does not accept the file, or cannot load the provider.
    """
    session = open_session(file, threads=threads, provider=provider, folder=folder)
    return InOnnxruntime(session, DEVICES.get(provider))


def bound(session: ort.InferenceSession, inputs: Sequence[Array], device: str) -> Callable[[], Any]:
    """A function that runs once, with inputs that are on ``device`` already, and outputs that stay there.

    It returns when the device has computed the outputs. Copies between the memories are not part of it.
    """
    binding = session.io_binding()
    for slot, array in zip(session.get_inputs(), inputs, strict=True):
        binding.bind_ortvalue_input(slot.name, ort.OrtValue.ortvalue_from_numpy(array, device))
    for slot in session.get_outputs():
        binding.bind_output(slot.name, device)
    binding.synchronize_inputs()

    def run_once() -> Any:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        return binding

    return run_once
