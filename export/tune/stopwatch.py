"""Takes the times: by onnxruntime and the clock of this machine, or by what a test gives instead."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import onnx_ir as ir

from export.runtime.files import is_large_file
from export.runtime.session import Array
from export.runtime.target import Target
from export.speed import Timing, time_files
from export.tune.alone import time_alone
from export.tune.candidates import Candidates
from fx_passes.timing.blocks import Ratio, ratio_of, time_blocks, typical


def time_against_first(
    files: Sequence[Path], inputs: Sequence[Array], target: Target, seconds: float
) -> list[Ratio]:
    """The time of each file over that of the first, all in turns in blocks of fresh sessions."""
    contestants = [partial(target.opened, file, inputs) for file in files]
    together = not any(is_large_file(file) for file in files)
    blocks = time_blocks(contestants, seconds=seconds, fewest_rounds=3, together=together)
    times = np.array([[typical(runs) for runs in block] for block in blocks])
    return [ratio_of(times[:, which] / times[:, 0]) for which in range(1, len(files))]


@dataclass(frozen=True)
class Stopwatch:
    """The functions that take times.

    Args:
        alone: milliseconds of each candidate of a site, see ``time_alone``.
        against_first: the time of each file over that of the first, see ``time_against_first``.
        speed: two files against each other, see ``time_files``.
        clock: gives seconds.
    """

    alone: Callable[[Candidates, ir.Model, Target, float], dict[str, float]] = time_alone
    against_first: Callable[[Sequence[Path], Sequence[Array], Target, float], list[Ratio]] = (
        time_against_first
    )
    speed: Callable[..., Timing] = time_files
    clock: Callable[[], float] = time.perf_counter
