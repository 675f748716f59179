"""Times in torch: of the processor, and of the events of a CUDA device, which a fake stands in for here."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from fx_passes.errors import UsageError
from fx_passes.tune.stopwatch import EventClock, Stopwatch, stopwatch_on


class Device:
    """A CUDA device whose work is a number of milliseconds. Events see it once they are synchronised."""

    def __init__(self) -> None:
        self.ms = 0.0
        self.asked: list[Any] = []

    def current_stream(self, device: torch.device) -> tuple[str, torch.device]:
        return "stream", device

    def event(self, enable_timing: bool = False) -> Event:
        assert enable_timing
        return Event(self)


class Event:
    """An event of ``Device``. As in torch, times need events that were recorded and have happened."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.at: float | None = None
        self.happened = False

    def record(self, stream: Any) -> None:
        self.device.asked.append(stream)
        self.at = self.device.ms

    def synchronize(self) -> None:
        assert self.at is not None
        self.happened = True

    def elapsed_time(self, end: Event) -> float:
        assert self.happened
        assert end.happened
        assert self.at is not None
        assert end.at is not None
        return float(torch.tensor(end.at - self.at, dtype=torch.float32))


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    """The second of two devices."""
    device = Device()
    monkeypatch.setattr(torch.cuda, "Event", device.event)
    monkeypatch.setattr(torch.cuda, "current_stream", device.current_stream)
    return device


def test_events(device: Device) -> None:
    """A difference of two readings is the time between two events on the stream of this device."""
    second = torch.device("cuda", 1)
    clock = stopwatch_on(second).clock
    assert isinstance(clock, EventClock)
    first = clock()
    device.ms += 2.5
    assert clock() - first == pytest.approx(2.5e-3)
    assert set(device.asked) == {("stream", second)}


def test_events_stay_fine(device: Device) -> None:
    """After hours, a microsecond is still seen: float32 from the start of the clock would lose it."""
    clock = EventClock(torch.device("cuda"))
    device.ms += 1e7
    before = clock()
    device.ms += 1e-3
    assert clock() - before == pytest.approx(1e-6, rel=1e-3)


def test_candidates_on_a_device(device: Device) -> None:
    """Candidates are timed by what the device needs, not by the processor."""

    def way(ms: float) -> Any:
        def run(x: Tensor) -> None:
            device.ms += ms

        return run

    stopwatch = stopwatch_on(torch.device("cuda", 1))
    times = stopwatch.alone({"expand": way(2.0), "fast": way(1.0)}, [torch.zeros(2)], 1.0)
    assert times == pytest.approx({"expand": 2.0, "fast": 1.0})
    assert stopwatch.speed(way(3.0), way(1.0), [torch.zeros(2)], 1.0).speedup == pytest.approx(3.0)


def test_the_processor() -> None:
    """It has a clock of its own."""
    assert stopwatch_on(torch.device("cpu")) == Stopwatch()


def test_another_device() -> None:
    """Nobody knows how to take times there."""
    with pytest.raises(UsageError, match="times are taken on cpu and cuda, and the model is on meta"):
        stopwatch_on(torch.device("meta"))


def test_inputs_are_copied() -> None:
    """What a function writes into its inputs, the caller does not see; and each block has other memory."""
    seen: list[int] = []

    def write(x: Tensor) -> None:
        seen.append(x.data_ptr())
        x.add_(1)

    x = torch.zeros(3)
    Stopwatch().speed(write, write, [x], 0.01)
    assert x.abs().max() == 0
    assert len(set(seen)) >= 3
    assert x.data_ptr() not in seen
