"""The results of the benchmarks, as their JSON files and as the markdown tables of the pages.

python benchmarks/tables.py FILE [FILE ...]    the tables of earlier results
"""

from __future__ import annotations

import json
import math
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from contestants import COLUMNS, STOCK

from export.runtime.target import Target
from export.speed import Timing
from fx_passes.timing.blocks import time_blocks
from fx_passes.timing.claims import Block
from fx_passes.train.formulations import FORMULATIONS

Row = Mapping[str, Any]
# A table shows an interval from this number of blocks on.
ENOUGH = 4
HAND, OURS = "by hand", "ours"
TRAINED = (OURS, "torch module", f"{HAND}, compiled", "torch module, compiled")


def as_json(timing: Timing) -> dict[str, Any]:
    """The JSON of two ways timed in turn: the typical milliseconds of both, and baseline / other."""
    return {
        "baseline_ms": timing.baseline_ms,
        "typical_ms": timing.optimized_ms,
        "ratio": timing.speedup,
        "ci95": list(timing.ci95),
        "control_ci95": list(timing.control.ci95),
        "blocks": len(timing.blocks),
        "noisy": timing.noisy,
    }


def timed_against(
    contestants: Sequence[Callable[[], Callable[[], Any]]], threads: int, seconds: float
) -> Timing:
    """Times two ways: the second against the first, and the first against itself.

    Args:
        contestants: each opens a new session, and returns a function that runs it once.
        seconds: the limit of the time. Two blocks are measured in any case, because one has no interval.
    """
    first, second = contestants
    blocks = time_blocks([first, second, first], seconds=seconds)
    if len(blocks) == 1:
        blocks += time_blocks([first, second, first], seconds=0.0)
    return Timing(tuple(Block(*block) for block in blocks), Target(threads=threads))


def speed_table(rows: Sequence[Row]) -> str:
    """The rows at one number of threads, with a column for each way to run a graph."""
    columns = [c for c in COLUMNS if any(c in row.get("columns", ()) for row in rows)]
    lines = header("graph", "input", STOCK, *columns)
    for row in rows:
        shapes = ", ".join("x".join(map(str, shape)) for shape in row.get("inputs", ()))
        measured = row.get("columns", {})
        cells = [cell(measured[c]) if c in measured else "" for c in columns]
        # The time beside the lowered file, or beside the first column that did not fail.
        beside = next((m["baseline_ms"] for m in measured.values() if "failed" not in m), None)
        stock = "failed" if beside is None else f"{beside:.3f} ms"
        lines.append(line(row["title"], shapes, stock, *cells))
    return "\n".join(lines)


def goals_table(rows: Sequence[Row]) -> str:
    """The goals of all rows, one line for each, at each number of threads."""
    lines = header("graph", "threads", "goal", "reached", "met")
    for row in rows:
        for goal in row.get("goals", ()):
            reached = "failed" if "failed" in goal else cell(goal)
            met = ("yes" if goal["met"] else "no") + (", within noise" if goal["within_noise"] else "")
            lines.append(line(row["name"], row["threads"], goal["text"], reached, met))
        if "failed" in row:
            lines.append(line(row["name"], row["threads"], "all", "failed", "no"))
    return "\n".join(lines)


def train_table(rows: Sequence[Row]) -> str:
    """Forward, backward and step, with the geometric means of ``ours`` below."""
    lines = header("input, kernel", "threads", "`auto` is", HAND, *TRAINED, "best formulation")
    for row in rows:
        columns = row["columns"]
        best = max((c for c in columns if c in FORMULATIONS), key=lambda c: columns[c]["ratio"])
        title = f"{'x'.join(map(str, row['shape']))}, {'x'.join(map(str, row['kernel']))}"
        cells = [cell(columns[name]) for name in TRAINED]
        hand = f"{columns[OURS]['baseline_ms']:.2f} ms"
        lines.append(line(title, row["threads"], row["auto"], hand, *cells, f"{best} {cell(columns[best])}"))
    for threads in threads_of(rows):
        ratios = [row["columns"][OURS]["ratio"] for row in rows if row["threads"] == threads]
        mean = math.exp(statistics.fmean(map(math.log, ratios)))
        lines.append(f"\nGeometric mean, {threads} thread(s): {mean:.2f}x; the lowest: {min(ratios):.2f}x")
    return "\n".join(lines)


def compile_table(rows: Sequence[Row]) -> str:
    """The torch.compile backend against plain torch.compile, for inference."""
    lines = header("graph", "threads", "torch.compile", 'backend="fx_passes"')
    for row in rows:
        lines.append(line(row["title"], row["threads"], f"{row['baseline_ms']:.2f} ms", cell(row)))
    return "\n".join(lines)


def cell(measured: Row) -> str:
    """``▼ 0.87x ± 0.02``: the typical ratio, half of its 95 % interval, and a mark for a loss.

    The interval is omitted for two or three blocks, because it would be too wide.
    """
    if "failed" in measured:
        return "failed"
    ratio, (low, high) = measured["ratio"], measured["ci95"]
    enough = measured["blocks"] >= ENOUGH
    digits = 2 if ratio < 10 else 1
    loss = "▼ " if (high if enough else ratio) < 1 else ""
    spread = f" ± {(high - low) / 2:.{digits}f}" if enough else ""
    return f"{loss}{ratio:.{digits}f}x{spread}"


def header(*names: str) -> list[str]:
    """The first two lines of a markdown table."""
    return [line(*names), "|" + "---|" * len(names)]


def line(*cells: object) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


def threads_of(rows: Sequence[Row]) -> list[int]:
    """The numbers of threads in the rows, in their order."""
    return list(dict.fromkeys(row["threads"] for row in rows))


def speed_tables(rows: Sequence[Row]) -> str:
    """A table for each number of threads, and the goals."""
    parts = []
    for threads in threads_of(rows):
        parts += [f"{threads} thread(s):", speed_table([row for row in rows if row["threads"] == threads])]
    return "\n\n".join([*parts, "▼: slower than the stock export in onnxruntime. Goals:", goals_table(rows)])


def train_tables(trained: Sequence[Row], compiled: Sequence[Row]) -> str:
    """Both tables of the training benchmark, as far as they were measured."""
    parts = []
    if trained:
        parts += ["Forward + backward + step:", train_table(trained)]
    if compiled:
        parts += ["Inference:", compile_table(compiled)]
    return "\n\n".join(parts)


def main() -> None:
    results = [json.loads(Path(name).read_text()) for name in sys.argv[1:]]
    collected = {
        kind: [row for result in results for row in result.get(kind, ())]
        for kind in ("rows", "train", "compile")
    }
    if collected["rows"]:
        print(speed_tables(collected["rows"]))
    print(train_tables(collected["train"], collected["compile"]))


if __name__ == "__main__":
    main()
