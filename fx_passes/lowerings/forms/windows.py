"""The windows of the input that the blocks of outputs along an axis read, for any length of the axis."""

from __future__ import annotations

from dataclasses import dataclass

from fx_passes.resample.axes import Axis
from fx_passes.resample.phases import Phases


@dataclass(frozen=True)
class Windows:
    """Windows of an axis. Block b of ``count`` outputs reads ``length`` samples from ``first + b * step`` on.

    Args:
        first: the first sample of the first window; negative: it lies in the padding.
        step: samples from one window to the next.
        length: samples of a window.
        count: outputs of a block.
    """

    first: int
    step: int
    length: int
    count: int = 1

    def read(self, blocks: int) -> int:
        """Samples from the first one of the first window to the last one of the last window."""
        return (blocks - 1) * self.step + self.length

    def behind(self, axis: Axis) -> int:
        """How many samples behind an input of any length the last window reads, at most. With so many there,
        a convolution of stride ``step`` computes all blocks. It computes no further one if the number is not
        negative.

        It depends on the length only by its residue: ``step`` samples more are one block more.
        """
        start = self.step * (4 + (self.length + abs(axis.extent)) // self.step)
        lengths = range(start, start + self.step)
        return max(self.first + self.read(-(-axis.size(n) // self.count)) - n for n in lengths)

    def fill(self, axis: Axis) -> bool:
        """Whether the outputs of an axis fill its blocks, and no more is computed, at every length."""
        lengths = range(8 * self.step, 9 * self.step)
        whole = all(axis.size(n + abs(axis.extent)) % self.count == 0 for n in lengths)
        return whole and self.behind(axis) >= 0


def single_windows(axis: Axis) -> Windows:
    """One output at a time of an axis that is not up-sampled."""
    return Windows(-axis.shift, axis.down, axis.span + 1)


def phase_windows(phases: Phases) -> Windows:
    """All phases at a time."""
    return Windows(phases.first, phases.step, phases.window, phases.count)
