"""Takes the times of functions of torch: by the clock of the processor, or by the events of a CUDA device."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fx_passes.errors import UsageError
from fx_passes.graph.torch_internals import pytree
from fx_passes.timing.blocks import Ratio, ratio_of, time_blocks, typical
from fx_passes.timing.claims import Block, Timing
from fx_passes.timing.in_turns import time_in_turns

Way = Callable[..., Any]
Clock = Callable[[], float]


@dataclass(frozen=True)
class Stopwatch:
    """Times functions of the same inputs. In each block they get copies of the inputs, in other memory.

    Args:
        clock: gives seconds. What was called before must have ended when it is read.
    """

    clock: Clock = time.perf_counter

    def alone(self, ways: Mapping[str, Way], inputs: Sequence[Any], seconds: float) -> dict[str, float]:
        """Milliseconds of each, by name. Those that are clearly slower drop out early."""
        openers = {name: partial(_opened, way, inputs) for name, way in ways.items()}
        return time_in_turns(openers, seconds, clock=self.clock)

    def against_first(self, ways: Sequence[Way], inputs: Sequence[Any], seconds: float) -> list[Ratio]:
        """The time of each over that of the first."""
        openers = [partial(_opened, way, inputs) for way in ways]
        blocks = time_blocks(openers, seconds=seconds, fewest_rounds=3, clock=self.clock)
        times = np.array([[typical(runs) for runs in block] for block in blocks])
        return [ratio_of(times[:, which] / times[:, 0]) for which in range(1, len(ways))]

    def speed(self, first: Way, second: Way, inputs: Sequence[Any], seconds: float) -> Timing:
        """The first against the second, and against itself."""
        openers = [partial(_opened, way, inputs) for way in (first, second, first)]
        blocks = time_blocks(openers, seconds=seconds, clock=self.clock)
        return Timing(tuple(Block(*block) for block in blocks))


def _opened(way: Way, inputs: Sequence[Any]) -> Callable[[], Any]:
    copies = copied(inputs)
    return lambda: way(*copies)


def copied(inputs: Sequence[Any]) -> list[Any]:
    """The inputs with tensors of their own: a graph may write into them."""
    copies = pytree.tree_map(lambda x: x.detach().clone() if isinstance(x, Tensor) else x, list(inputs))
    return list(copies)


class EventClock:
    """A clock of events on the current stream of a CUDA device.

    A reading records an event and waits until the device has reached it. So a difference of two readings is
    the time of one call by itself, from its start on the processor to the end of its last kernel.

    Args:
        device: a CUDA device.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.last = self._recorded()
        self.seconds = 0.0

    def _recorded(self) -> Any:
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))
        event.synchronize()
        return event

    def __call__(self) -> float:
        # From reading to reading: an event gives float32, which is too coarse for the time since the start.
        event = self._recorded()
        self.seconds += self.last.elapsed_time(event) / 1e3
        self.last = event
        return self.seconds


def stopwatch_on(device: torch.device) -> Stopwatch:
    """The stopwatch for functions that run on ``device``.

    Raises:
        UsageError: nobody knows how to take times there.
    """
    if device.type == "cpu":
        return Stopwatch()
    if device.type == "cuda":
        return Stopwatch(EventClock(device))
    raise UsageError(f"times are taken on cpu and cuda, and the model is on {device}; use the plan 'static'")
