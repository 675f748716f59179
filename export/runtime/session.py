"""The one place where an onnxruntime session is configured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort

from export.runtime.files import is_large_file
from fx_passes.errors import ExportError

Array = np.ndarray
CPU = "CPUExecutionProvider"
# A provider that rounds float32 to fewer digits by default would not compute the same as the original.
_PRECISE = {"CUDAExecutionProvider": {"use_tf32": "0"}}


def open_session(
    path: Path | bytes,
    *,
    threads: int = 0,
    provider: str = CPU,
    optimized: bool = True,
    folder: Path | None = None,
    profile: Path | None = None,
) -> ort.InferenceSession:
    """A session on an ONNX file.

    Args:
        path: the ONNX file, with its external data beside it; or the bytes of a model.
        threads: threads within an operator; 0: one for each core. Operators run one after the other.
        provider: what computes. The CPU computes the operators that it does not have.
        optimized: all graph optimizations of onnxruntime (its default), or none.
        folder: the folder of the external data, for a model in bytes.
        profile: how the name of a file begins to which the session writes when each operator ran.

    A large file is opened without repacking its weights. Its memory is then the mapped file; repacking takes
    twice as much again.

    Raises:
        ExportError: onnxruntime does not accept the file, or cannot load the provider.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    levels = ort.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimized else levels.ORT_DISABLE_ALL
    # Idle threads that spin steal time from whatever is measured next to them.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if folder is not None:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
    if folder is not None or (isinstance(path, Path) and is_large_file(path)):
        options.add_session_config_entry("session.disable_prepacking", "1")
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, str(profile)
    options.log_severity_level = 4  # what goes wrong is raised, and need not be printed as well
    try:
        source = path if isinstance(path, bytes) else str(path)
        session = ort.InferenceSession(source, options, providers=_providers(provider))
    except Exception as error:  # onnxruntime raises half a dozen classes with no common base
        raise ExportError(
            f"onnxruntime does not accept {_named(path)}: {str(error).splitlines()[0]}"
        ) from error
    if session.get_providers()[0] != provider:  # onnxruntime then goes on without it
        raise ExportError(f"onnxruntime could not load {provider}: is everything installed that it needs?")
    return session


def _providers(provider: str) -> list[str | tuple[str, dict[str, str]]]:
    first = (provider, _PRECISE[provider]) if provider in _PRECISE else provider
    return [first] if provider == CPU else [first, CPU]


def run(session: ort.InferenceSession, inputs: Sequence[Array]) -> list[Array]:
    """All outputs, for inputs in the order of the session.

    Raises:
        ExportError: onnxruntime could not run the model on these inputs.
    """
    feed = {slot.name: array for slot, array in zip(session.get_inputs(), inputs, strict=True)}
    try:
        return list(session.run(None, feed))
    except Exception as error:
        raise ExportError(f"onnxruntime could not run the model: {str(error).splitlines()[0]}") from error


def _named(path: Path | bytes) -> str:
    return "a model in memory" if isinstance(path, bytes) else str(path)
