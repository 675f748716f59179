"""What each lowering gains on the grid, as markdown: a section for each, for its page.

    python benchmarks/by_lowering.py FILE [FILE ...] --machine WORDS > benchmarks/results/by_lowering.md

``FILE`` is what ``grid.py`` wrote. A lowering that was timed nowhere on the grid has no section.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

KEPT = "expand"
_SHOWN = 6  # points in a table
_HEAD = """# Each lowering on the grid

A point is a geometry drawn at random. The original is the stock export in onnxruntime. All ways to compute a
point run in turns, on one thread. A gain above 1 is faster. Made by `python benchmarks/grid.py --json FILE`
and `python benchmarks/by_lowering.py FILE`: {points} points, {machine}.
"""


def lowering_of(name: str) -> str:
    """The lowering of a proposal. Siblings that are merged count for what computes them."""
    merged = re.search(r"lowering=(\w+)", name)
    return merged[1] if merged else name.partition("(")[0]


def best_of_each(row: Mapping[str, Any]) -> dict[str, tuple[str, float]]:
    """The fastest parameters of each lowering at a point, and their gain over the original."""
    found: dict[str, tuple[str, float]] = {}
    for name, time in row["ms"].items():
        lowering, gain = lowering_of(name), row["ms"][KEPT] / time
        if name != KEPT and gain > found.get(lowering, ("", 0.0))[1]:
            found[lowering] = (name, gain)
    return found


def sections(rows: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """The text of each lowering: how often it is possible, how often it wins, and some of these points."""
    points: dict[str, list[tuple[Mapping[str, Any], str, float, bool]]] = defaultdict(list)
    for row in rows:
        each = best_of_each(row)
        fastest = max([1.0, *(gain for _, gain in each.values())])
        for lowering, (name, gain) in each.items():
            points[lowering].append((row, name, gain, gain == fastest))
    return {lowering: _section(points[lowering]) for lowering in sorted(points)}


def _section(points: Sequence[tuple[Mapping[str, Any], str, float, bool]]) -> str:
    won = sorted((point for point in points if point[3]), key=lambda point: -point[2])
    slower = sum(gain < 1 for _, _, gain, _ in points)
    said = f"Possible at {len(points)} points. It is the fastest way at {len(won)} of them, and slower than"
    said += f" the original at {slower}."
    if not won:
        return said
    mean = math.exp(statistics.fmean(math.log(gain) for _, _, gain, _ in won))
    said += f" Where it is the fastest, it gains {mean:.2f}x (geometric mean). Some of these points, from the"
    said += " largest gain to the smallest:"
    lines = ["| geometry | original | way | gain |", "|---|---|---|---|"]
    for row, name, gain, _ in _spread(won):
        lines.append(f"| {row['title']} | {row['ms'][KEPT]:.3f} ms | `{name}` | {gain:.2f}x |")
    return "\n".join([said, "", *lines])


def _spread(points: Sequence[Any]) -> list[Any]:
    """At most six of them, evenly from the first to the last."""
    count = min(_SHOWN, len(points))
    return [points[round(i * (len(points) - 1) / max(count - 1, 1))] for i in range(count)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="JSON that grid.py wrote")
    parser.add_argument("--machine", required=True, help="what the grid was measured on, in words")
    options = parser.parse_args()
    rows = [row for file in options.files for row in json.loads(file.read_text())["rows"]]
    print(_HEAD.format(points=len(rows), machine=options.machine))
    for lowering, text in sections(rows).items():
        print(f"## {lowering}\n\n{text}\n")


if __name__ == "__main__":
    main()
