"""The last stage: is the verified file faster than the original?"""

from __future__ import annotations

from dataclasses import dataclass

from export.job.keep import keep_all
from export.job.source import Source
from export.job.verify import Verified
from export.speed import Timing
from export.stages import Stages
from export.tune.options import Options


@dataclass(frozen=True)
class Measured:
    """The file that is finally written, and its speed. None: the caller did not ask for it."""

    verified: Verified
    speed: Timing | None


def measure_or_keep(source: Source, verified: Verified, options: Options, stages: Stages) -> Measured:
    """Time both files against each other, after they are verified.

    A copy of the original is not timed. A tuned file that measures slower than the original is not written.
    Every convolution is kept instead, and the result is verified and measured. Rules and plans are carried
    out as the caller asked; then the report says that the file is slower.

    Raises:
        NotEquivalentError: the files differ although every convolution is kept.
    """
    if options.seconds <= 0 or verified.rewritten.unchanged:
        return Measured(verified, None)
    speed = _speed(source, verified, options, stages)
    if not (speed.slower and options.tunes and verified.rewritten.lowered):
        return Measured(verified, speed)
    low, high = speed.ci95
    said = f"{speed.speedup:.3f}x, 95 % interval {low:.3f} to {high:.3f}"
    why = f"the tuned file is slower than the original: {said}"
    kept = keep_all(source, verified.rewritten, options, why, stages)
    return Measured(kept, None if kept.rewritten.unchanged else _speed(source, kept, options, stages))


def _speed(source: Source, verified: Verified, options: Options, stages: Stages) -> Timing:
    files = source.baseline, verified.rewritten.path
    with stages.stage("measuring speed"):
        return options.stopwatch.speed(
            *files, source.arrays, threads=options.threads, seconds=options.seconds
        )
