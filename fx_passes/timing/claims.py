"""Is one way to compute something faster than another? Every claim of speed follows these rules.

The ways run in blocks (``blocks.py``): the original, the other one, and the original again. A block gives one
ratio, original over other, and one control, original over original. The interval is Student's t over the
logarithms of these ratios, because blocks are independent of each other.

"Faster" and "slower" are claims. The interval of the ratio must lie beyond 1 and beyond the interval of the
control. The control shows what this machine measures where there is no difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fx_passes.timing.blocks import Ratio, geometric_mean, ratio_of, typical

# The fewest blocks that a claim may rest on. With two, Student's t is 12.7: such a claim is far from 1.
FEWEST_BLOCKS = 2
# With several inputs, a file must reach this much of the speed of the original with each of them.
HOLDS = 0.98
# A measurement is called noisy where half of its interval is wider than this, relative to the ratio.
NOISY_HALF_WIDTH = 0.05


@dataclass(frozen=True)
class Block:
    """Milliseconds of the runs of three fresh sessions: original, optimized, and the original again."""

    baseline_ms: tuple[float, ...]
    optimized_ms: tuple[float, ...]
    control_ms: tuple[float, ...]


@dataclass(frozen=True)
class Timing:
    """The measurement of two files, block by block, and the claims that it allows."""

    blocks: tuple[Block, ...]

    @property
    def baseline_ms(self) -> float:
        """Typical time of the original: the geometric mean over the blocks of the lower quartile."""
        return geometric_mean([typical(block.baseline_ms) for block in self.blocks])

    @property
    def optimized_ms(self) -> float:
        """Typical time of the optimized file. ``speedup`` is the quotient of the two."""
        return geometric_mean([typical(block.optimized_ms) for block in self.blocks])

    @property
    def ratio(self) -> Ratio:
        """The time of the original over that of the optimized file."""
        return ratio_of([typical(b.baseline_ms) / typical(b.optimized_ms) for b in self.blocks])

    @property
    def control(self) -> Ratio:
        """The time of the original over that of the original: the measurement of no difference."""
        return ratio_of([typical(b.baseline_ms) / typical(b.control_ms) for b in self.blocks])

    @property
    def speedup(self) -> float:
        """The typical ratio over the blocks. Above 1 the optimized file is faster."""
        return self.ratio.value

    @property
    def ci95(self) -> tuple[float, float]:
        """The 95 % interval of ``speedup``."""
        return self.ratio.ci95

    @property
    def runs(self) -> int:
        """Timed runs of each file."""
        return sum(len(block.baseline_ms) for block in self.blocks)

    @property
    def enough(self) -> bool:
        """Whether there are enough blocks for a claim."""
        return len(self.blocks) >= FEWEST_BLOCKS

    @property
    def faster(self) -> bool:
        """The whole interval lies above 1 and above what the control shows."""
        return self.enough and self.ci95[0] > max(1.0, self.control.ci95[1])

    @property
    def slower(self) -> bool:
        """The whole interval lies below 1 and below what the control shows."""
        return self.enough and self.ci95[1] < min(1.0, self.control.ci95[0])

    @property
    def noisy(self) -> bool:
        """The interval is too wide to tell a few per cent."""
        low, high = self.ci95
        return (high - low) / (high + low) > NOISY_HALF_WIDTH

    def summary(self) -> dict[str, Any]:
        """The result in a few numbers."""
        return {
            "speedup": self.speedup,
            "ci95": list(self.ci95),
            "control_ci95": list(self.control.ci95),
            "blocks": len(self.blocks),
        }

    def to_json(self) -> dict[str, Any]:
        """The "speed" object of the JSON contract, with the raw samples."""
        return {
            "baseline_ms": self.baseline_ms,
            "optimized_ms": self.optimized_ms,
            "speedup": self.speedup,
            "ci95": list(self.ci95),
            "control": {"speedup": self.control.value, "ci95": list(self.control.ci95)},
            "blocks": len(self.blocks),
            "runs": self.runs,
            "faster": self.faster,
            "slower": self.slower,
            "noisy": self.noisy,
            "samples_ms": {
                "baseline": [list(block.baseline_ms) for block in self.blocks],
                "optimized": [list(block.optimized_ms) for block in self.blocks],
                "control": [list(block.control_ms) for block in self.blocks],
            },
        }


def faster_together(timings: Sequence[Timing]) -> bool:
    """Whether a file is faster with several inputs together, by their geometric mean, and holds with each of
    them. With one, it is ``Timing.faster``."""
    lowest = geometric_mean([timing.ci95[0] or 1e-9 for timing in timings])
    control = geometric_mean([timing.control.ci95[1] for timing in timings])
    holds = all(timing.enough and timing.speedup >= HOLDS for timing in timings)
    return holds and lowest > max(1.0, control)
