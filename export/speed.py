"""Is one ONNX file faster than another? The claims are those of ``fx_passes/timing/claims.py``.

Two sessions of one file differ: their memory lies elsewhere, and was packed in another order. So one pair of
sessions says little, however often it runs. A block opens three fresh sessions: of the original, of the
optimized file, and of the original again, each time in another order. They run in turns (files that are too
large to be open at once: one after the other). The typical time of a session is the lower quartile of its
runs: a run that was interrupted cannot move it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from export.runtime.files import is_large_file
from export.runtime.session import Array, open_session, run
from fx_passes.timing.blocks import time_blocks
from fx_passes.timing.claims import Block, Timing


def measure_speed(
    baseline: Path | str,
    optimized: Path | str,
    inputs: Sequence[Array],
    *,
    threads: int = 1,
    seconds: float = 10.0,
    progress: Callable[[int, float], None] | None = None,
) -> Timing:
    """Time two ONNX files against each other, and the first one against itself, on the same inputs.

    Args:
        baseline, optimized: the files. ``speedup`` is the time of the first over that of the second.
        inputs: arrays in the order of the inputs of the files.
        threads: intra-operator threads of all sessions.
        seconds: the longest time to measure, with the opening of sessions. One block is measured in any case.
            A single block gives a ratio, and allows no claim.
        progress: called with the number of blocks measured and the seconds spent.

    Raises:
        ExportError: onnxruntime does not accept a file, or cannot run it.
    """
    files = [Path(baseline), Path(optimized), Path(baseline)]
    blocks = time_blocks(
        [partial(opened, file, inputs, threads) for file in files],
        seconds=seconds,
        together=not any(is_large_file(file) for file in files),
        progress=progress,
    )
    return Timing(tuple(Block(*block) for block in blocks), threads)


def opened(file: Path | bytes, inputs: Sequence[Array], threads: int) -> Callable[[], Any]:
    """A function that runs a file, or the bytes of a model, in a session of its own."""
    return partial(run, open_session(file, threads=threads), inputs)
