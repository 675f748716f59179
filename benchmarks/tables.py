"""The results of the speed benchmark, as its JSON has them, and as two markdown tables."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from contestants import COLUMNS, STOCK

from export.measure import Timing


def as_json(timing: Timing) -> dict[str, Any]:
    """What is kept of two ways timed in turn: median milliseconds of both, baseline / other."""
    return {
        "baseline_ms": statistics.median(timing.baseline_ms),
        "median_ms": statistics.median(timing.optimized_ms),
        "ratio": timing.speedup,
        "ci95": list(timing.ci95),
        "pairs": len(timing.baseline_ms),
        "noisy": timing.noisy,
    }


def speed_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A markdown table of the rows at one number of threads, a column for each way to run a graph."""
    columns = [c for c in COLUMNS if any(c in row.get("columns", ()) for row in rows)]
    lines = [
        f"| graph | input | {STOCK} | {' | '.join(columns)} |",
        "|---" * (len(columns) + 3) + "|",
    ]
    for row in rows:
        shapes = ", ".join("x".join(map(str, shape)) for shape in row.get("inputs", ()))
        measured = row.get("columns", {})
        cells = [cell(measured[c]) if c in measured else "" for c in columns]
        # Beside the lowered file, or beside the first column that did not fail.
        beside = next((m["baseline_ms"] for m in measured.values() if "failed" not in m), None)
        stock = "failed" if beside is None else f"{beside:.3f} ms"
        lines.append(f"| {row['title']} | {shapes} | {stock} | {' | '.join(cells)} |")
    return "\n".join(lines)


def cell(measured: Mapping[str, Any]) -> str:
    """``0.123 ms 2.13x (2.10 to 2.15)``, behind a triangle if the interval lies below 1."""
    if "failed" in measured:
        return "failed"
    loss = "▼ " if measured["ci95"][1] < 1 else ""
    return f"{loss}{measured['median_ms']:.3f} ms {interval_text(measured)}"


def goals_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The goals of all rows as a markdown table, a line for each, at each number of threads."""
    lines = ["| graph | threads | goal | reached | met |", "|---|---|---|---|---|"]
    for row in rows:
        for goal in row.get("goals", ()):
            reached = "failed" if "failed" in goal else interval_text(goal)
            met = ("yes" if goal["met"] else "no") + (", within noise" if goal["within_noise"] else "")
            lines.append(f"| {row['name']} | {row['threads']} | {goal['text']} | {reached} | {met} |")
        if "failed" in row:
            lines.append(f"| {row['name']} | {row['threads']} | all | failed | no |")
    return "\n".join(lines)


def interval_text(measured: Mapping[str, Any]) -> str:
    """``2.13x (2.10 to 2.15)``: the median ratio and its 95 % interval."""
    low, high = measured["ci95"]
    digits = 2 if measured["ratio"] < 10 else 1
    return f"{measured['ratio']:.{digits}f}x ({low:.{digits}f} to {high:.{digits}f})"
