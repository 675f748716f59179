"""The last stage: is the verified file faster than the original?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from export.job.keep import keep_all
from export.job.source import Source
from export.job.verify import Verified
from export.report.text import counted
from export.runtime.arrays import shape_text
from export.runtime.session import Array
from export.speed import Timing
from export.stages import Stages
from export.tune.options import Options
from export.verify.cases import resized

Shapes = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Measured:
    """The file that is finally written, and its speed.

    Args:
        verified: the file.
        speed: for each number of threads and each input that was timed, the shapes and the times. The example
            with the first number of threads is the first. Empty: the caller did not ask for it, or the file
            is a copy.
    """

    verified: Verified
    speed: tuple[tuple[Shapes, Timing], ...] = ()


def measure_or_keep(source: Source, verified: Verified, options: Options, stages: Stages) -> Measured:
    """Time both files against each other, after they are verified.

    With open sizes they are timed at more than one size: at those that the caller tunes at, or at the largest
    that was verified. They are timed with each number of threads. A copy of the original is not timed. A
    tuned file that measures slower than the original in any of these is not written. Every convolution is
    kept instead, and the result is verified and measured. Rules and plans are carried out as the caller
    asked; then the report says that the file is slower.

    Raises:
        NotEquivalentError: the files differ although every convolution is kept.
    """
    if options.seconds <= 0 or verified.rewritten.unchanged:
        return Measured(verified)
    speed = _speed(source, verified, options, stages)
    slower = [(shapes, timing) for shapes, timing in speed if timing.slower]
    if not (slower and options.tunes and verified.rewritten.lowered):
        return Measured(verified, speed)
    shapes, timing = slower[0]
    low, high = timing.ci95
    said = f"{timing.speedup:.3f}x, 95 % interval {low:.3f} to {high:.3f}"
    where = f" at {', '.join(map(shape_text, shapes))}" if len(speed) > 1 else ""
    where += f" with {counted(timing.threads, 'thread')}" if len(options.targets) > 1 else ""
    where += "" if timing.target.is_usual else f" in {timing.target}"
    why = f"the tuned file is slower than the original{where}: {said}"
    kept = keep_all(source, verified.rewritten, options, why, stages)
    return Measured(kept, () if kept.rewritten.unchanged else _speed(source, kept, options, stages))


def _speed(
    source: Source, verified: Verified, options: Options, stages: Stages
) -> tuple[tuple[Shapes, Timing], ...]:
    files, found = (source.baseline, verified.rewritten.path), []
    setups = [(inputs, at) for at in options.targets for inputs in _workloads(source, verified)]
    with stages.stage("measuring speed"):
        for inputs, at in setups:
            timing = options.stopwatch.speed(*files, inputs, at, seconds=options.seconds / len(setups))
            found.append((tuple(array.shape for array in inputs), timing))
    return tuple(found)


def _workloads(source: Source, verified: Verified) -> list[Sequence[Array]]:
    """The inputs to time. If the caller names no sizes and some are open, the largest that was verified is
    among them."""
    others = list(verified.equivalence.sizes.values())
    if source.tune_at or not others:
        return list(source.workloads)
    largest = max(others, key=lambda shapes: sum(map(math.prod, shapes)))
    return [source.arrays, resized(source.arrays, largest)]
