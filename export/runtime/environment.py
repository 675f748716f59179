"""The machine and the versions that a result was made with."""

from __future__ import annotations

import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from export.runtime.target import RUNTIMES, Target


def environment(*targets: Target) -> dict[str, Any]:
    """The machine and the versions that a result depends on.

    Args:
        targets: one target with one or more numbers of threads. ``threads`` is that of the first.
    """
    first = targets[0]
    packages = ("fx-passes", "torch", "onnx", "onnxscript", "numpy")
    several = {"all_threads": [target.threads for target in targets]} if len(targets) > 1 else {}
    versions = {name: metadata.version(name) for name in packages}
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "threads": first.threads,
        **several,
        **first.to_json(),
        **versions,
        "onnxruntime": RUNTIMES["onnxruntime"].version(),
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())
