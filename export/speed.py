"""Is one ONNX file faster than another? The claims are those of ``fx_passes/timing/claims.py``.

Two sessions of one file differ: their memory lies elsewhere, and was packed in another order. So one pair of
sessions says little, however often it runs. A block opens three fresh sessions: of the original, of the
optimized file, and of the original again, each time in another order. They run in turns (files that are too
large to be open at once: one after the other). The typical time of a session is the lower quartile of its
runs: a run that was interrupted cannot move it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from export.runtime.files import is_large_file
from export.runtime.session import Array
from export.runtime.target import USUAL, Target, parse_target
from fx_passes.timing import claims
from fx_passes.timing.blocks import time_blocks
from fx_passes.timing.claims import Block


@dataclass(frozen=True)
class Timing(claims.Timing):
    """The measurement of two files in a target."""

    target: Target = USUAL

    @property
    def threads(self) -> int:
        """Threads of all sessions."""
        return self.target.threads

    def summary(self) -> dict[str, Any]:
        """The result in a few numbers."""
        return {**super().summary(), "threads": self.threads}

    def to_json(self) -> dict[str, Any]:
        """The "speed" object of the JSON contract, with the raw samples."""
        return {**super().to_json(), "threads": self.threads, **self.target.to_json()}


def measure_speed(
    baseline: Path | str,
    optimized: Path | str,
    inputs: Sequence[Array],
    *,
    threads: int = 1,
    target: str = "onnxruntime",
    seconds: float = 10.0,
    progress: Callable[[int, float], None] | None = None,
) -> Timing:
    """Time two ONNX files against each other, and the first one against itself, on the same inputs.

    Args:
        baseline, optimized: the files. ``speedup`` is the time of the first over that of the second.
        inputs: arrays in the order of the inputs of the files.
        threads: intra-operator threads of all sessions.
        target: the runtime that runs them, as for ``--target``: ``onnxruntime``, ``onnxruntime:PROVIDER`` or
            ``openvino``.
        seconds: the longest time to measure, with the opening of sessions. One block is measured in any case.
            A single block gives a ratio, and allows no claim.
        progress: called with the number of blocks measured and the seconds spent.

    Raises:
        ExportError: the runtime does not accept a file, or cannot run it.
        UsageError: there is no such target.
    """
    where = parse_target(target, threads)
    return time_files(baseline, optimized, inputs, where, seconds=seconds, progress=progress)


def time_files(
    baseline: Path | str,
    optimized: Path | str,
    inputs: Sequence[Array],
    target: Target,
    *,
    seconds: float,
    progress: Callable[[int, float], None] | None = None,
) -> Timing:
    """``measure_speed`` with a target as a record."""
    files = [Path(baseline), Path(optimized), Path(baseline)]
    blocks = time_blocks(
        [partial(target.opened, file, inputs) for file in files],
        seconds=seconds,
        together=not any(is_large_file(file) for file in files),
        progress=progress,
    )
    return Timing(tuple(Block(*block) for block in blocks), target)
