"""Polyphase: T neighbouring outputs of an axis as T channels, each a filter on the same input samples.

By ``y[o] = sum h[k] z[o*down + k*dilation - shift]`` (``axes.py``), output ``o = b*T + t`` reads input sample
``i = b*step + j`` with tap ``k = (up*j - t*down + shift) / dilation``. Here ``step = T*down/up`` must be an
integer. The result is an ordinary convolution of stride ``step`` with T output channels. Taps that do not
exist are zeros. So an Inf or NaN in the input may reach more outputs than in the original (0 * Inf = NaN).
(Vaidyanathan 1993, section 4.3, with the polyphase components of output and input joined.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from fx_passes.resample.axes import Axis


@dataclass(frozen=True)
class Phases:
    """T phases of an axis.

    Args:
        first: the input sample at position 0 of the first window; negative: it lies in the padding.
        step: samples from one window to the next.
        taps: (T, length of a window) indices of taps; -1 where there is none.
    """

    first: int
    step: int
    taps: tuple[tuple[int, ...], ...]

    @property
    def count(self) -> int:
        """T, the number of phases."""
        return len(self.taps)

    @property
    def window(self) -> int:
        """Length of a window in input samples."""
        return len(self.taps[0])


# Equal sites ask again and again: on a vocoder, half of the time of a lowering.
@lru_cache(maxsize=1024)
def phases_of(axis: Axis, count: int) -> Phases | None:
    """``count`` phases of ``axis``. None if not every block of outputs begins on an input sample.

    Example:
        >>> phases_of(Axis(taps=2, up=2, shift=1, extent=-1), 2)
        Phases(first=0, step=1, taps=((1,), (0,)))
    """
    if count * axis.down % axis.up:
        return None
    first = math.ceil(-axis.shift / axis.up)
    last = (axis.span + (count - 1) * axis.down - axis.shift) // axis.up
    window = range(first, max(last, first) + 1)
    taps = tuple(
        tuple(_tap(axis, axis.up * sample - phase * axis.down + axis.shift) for sample in window)
        for phase in range(count)
    )
    return Phases(first, count * axis.down // axis.up, taps)


def _tap(axis: Axis, offset: int) -> int:
    tap, rest = divmod(offset, axis.dilation)
    return tap if rest == 0 and 0 <= tap < axis.taps else -1


def phase_weight(kernel: Tensor, phases: Phases, dim: int) -> Tensor:
    """The taps of ``kernel`` along ``dim``: in place of that dimension stand two, (phases, window).

    Example:
        >>> phase_weight(torch.tensor([1.0, 2.0]), phases_of(Axis(2), 2), 0)
        tensor([[1., 2., 0.],
                [0., 1., 2.]])
    """
    index = torch.tensor(phases.taps)
    chosen = kernel.movedim(dim, -1)[..., index.clamp(min=0)]
    chosen = torch.where(index >= 0, chosen, torch.zeros((), dtype=kernel.dtype))
    return chosen.movedim((-2, -1), (dim, dim + 1))
