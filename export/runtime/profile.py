"""The time that each kind of operator takes in a file, from onnxruntime's profile."""

from __future__ import annotations

import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from export.runtime.session import CPU, Array, open_session, run
from fx_passes.errors import ExportError
from fx_passes.timing.blocks import typical

# Runs that count. The first one, which fills caches, does not.
RUNS = 8


def operator_times(
    file: Path, inputs: Sequence[Array], *, provider: str = CPU, threads: int = 1, seconds: float = 2.0
) -> dict[str, float]:
    """Milliseconds of one run by operator, the longest first. Operators are those that onnxruntime made of
    the nodes.

    Args:
        seconds: no further run begins after this time.

    Raises:
        ExportError: onnxruntime does not run the file, or its profile cannot be read.
    """
    with tempfile.TemporaryDirectory() as folder:
        session = open_session(file, threads=threads, provider=provider, profile=Path(folder) / "profile")
        start = time.perf_counter()
        for number in range(1 + RUNS):
            if number > 1 and time.perf_counter() - start > seconds:
                break
            run(session, inputs)
        written = Path(session.end_profiling())
        try:
            return times_in(json.loads(written.read_text()))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ExportError(f"the profile of onnxruntime cannot be read: {error}") from error


def times_in(events: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Milliseconds by operator of one run: of all runs but the first, the typical one.

    Args:
        events: those of a profile, in microseconds.

    Raises:
        ValueError: fewer than two runs are in it.
    """
    starts = sorted(event["ts"] for event in events if event["name"] == "model_run")[1:]
    if not starts:
        raise ValueError("it has fewer than two runs")
    runs: list[dict[str, float]] = [defaultdict(float) for _ in starts]
    for event in events:
        number = sum(start <= event["ts"] for start in starts)
        if number and event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            runs[number - 1][event["args"]["op_name"]] += event["dur"] / 1e3
    names = {name for one in runs for name in one}
    times = {name: typical([one.get(name, 0.0) for one in runs]) for name in names}
    return dict(sorted(times.items(), key=lambda item: -item[1]))
