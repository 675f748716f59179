"""The machine and the versions that a result was made with."""

from __future__ import annotations

import platform
from importlib import metadata
from pathlib import Path
from typing import Any


def environment(threads: int) -> dict[str, Any]:
    """The machine and the versions that a result depends on."""
    packages = ("fx-passes", "torch", "onnx", "onnxruntime", "onnxscript", "numpy")
    versions = {name: metadata.version(name) for name in packages}
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "threads": threads,
        **versions,
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())
