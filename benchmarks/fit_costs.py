"""Fits the constants of ``fx_passes/costs/operator_times.py`` to the measurements of ``grid.py``.

    python benchmarks/fit_costs.py FILE ...      JSON files of benchmarks/grid.py, without --check

Every graph with a single site gives one equation: the counts of its work times the constants are its time.
The solution has no negative constants, and small relative errors. The program then prints how far the
predicted gains lie above the measured ones. The margin of ``fx_passes/choose/static_rules.py`` covers this
difference.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from geometries import Point, build, draw
from numpy.typing import NDArray

from fx_passes.capture.inference import capture_for_inference
from fx_passes.costs import operator_times as costs
from fx_passes.costs.operator_times import Work, original
from fx_passes.costs.site_sizes import Sizes, sizes_of
from fx_passes.lowerings import MODULES, by_parts, propose
from fx_passes.lowerings.forms import volume
from fx_passes.records import Proposal
from fx_passes.resample.lowerable import lowerable_sites

# Channels in a block on the machine of the measurements.
_BLOCK = 8
Vector = NDArray[np.float64]


def graphs(path: Path) -> Iterator[tuple[int, str, Work, float]]:
    """(point, lowering, work, nanoseconds) of each graph that has one site and nothing else."""
    known = json.loads(path.read_text())
    for row in known["rows"]:
        point = draw(known["seed"], row["index"], known.get("volumes", False))
        if point.between or point.siblings > 1:
            continue
        sizes, ways = _site(point, row["index"])
        if sizes is None:
            continue
        for name, ms in row["ms"].items():
            if name == "expand":
                yield row["index"], name, original(sizes, _BLOCK, chain=False), ms * 1e6
            elif name in ways and (work := _work(sizes, ways[name])) is not None:
                yield row["index"], ways[name].lowering, work, ms * 1e6


def _work(sizes: Sizes, proposal: Proposal) -> Work | None:
    """The work of a proposal. None if it is not known."""
    if by_parts(proposal.lowering, sizes.dim):
        return volume.work(sizes, proposal, MODULES, _BLOCK)
    count = getattr(MODULES[proposal.lowering], "work", None)
    return None if count is None else count(sizes, dict(proposal.params), _BLOCK)


def _site(point: Point, index: int) -> tuple[Sizes | None, dict[str, Proposal]]:
    sites, _ = lowerable_sites(capture_for_inference(*build(point, index)).graph_module)
    if not sites:
        return None, {}
    site = sites[0]
    own_bias = site.bias is not None and site.bias.numel() != site.resample.rows
    proposals, _ = propose(site.resample, site.kernel)
    sizes = sizes_of(site.resample, own_bias=own_bias, transposed=site.transposed)
    return sizes, {proposal.name: proposal for proposal in proposals}


def solve(rows: Sequence[Work], times: Vector) -> dict[str, float]:
    """Constants that are not negative. ``run`` is the constant time of every run of a session."""
    names = sorted({name for row in rows for name in row})
    counts = np.array([[float(row[name]) for name in names] + [1.0] for row in rows])
    weights = 1 / times
    found = np.zeros(counts.shape[1])
    for _ in range(10):
        found = _not_negative(counts * weights[:, None], times * weights)
        # Half the time is as bad an error as twice the time.
        weights = 1 / np.sqrt(times * np.maximum(counts @ found, 0.2 * times))
    return dict(zip([*names, "run"], found, strict=True))


def _not_negative(matrix: Vector, wanted: Vector) -> Vector:
    """Least squares without negative values, by Lawson and Hanson's active sets."""
    scale = np.linalg.norm(matrix, axis=0) + 1e-300
    matrix = matrix / scale
    found, free = np.zeros(matrix.shape[1]), np.zeros(matrix.shape[1], bool)
    for _ in range(10 * matrix.shape[1]):
        slope = matrix.T @ (wanted - matrix @ found)
        slope[free] = -math.inf
        if slope.max() < 1e-9:
            break
        free[slope.argmax()] = True
        while True:
            trial = np.zeros_like(found)
            trial[free] = np.linalg.lstsq(matrix[:, free], wanted, rcond=None)[0]
            if trial[free].min() > 0:
                found = trial
                break
            down = free & (trial <= 0)
            step = (found[down] / (found[down] - trial[down])).min()
            found = found + step * (trial - found)
            free &= found > 1e-12
            found[~free] = 0
    return found / scale


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("files", type=Path, nargs="+")
    options = parser.parse_args()
    known = [(path, *graph) for path in options.files for graph in graphs(path)]
    times = np.array([ns for *_, ns in known])
    constants = solve([work for *_, work, _ in known], times)
    for name, value in constants.items():
        print(f'    "{name}": {float(f"{value:.2g}")},')
    missing = set(costs.NANOSECONDS) - set(constants)
    print(f"never counted: {', '.join(sorted(missing)) or 'none'}")
    _print_errors(known, constants)


def _print_errors(known: Sequence[tuple[Path, int, str, Work, float]], constants: dict[str, float]) -> None:
    costs_of = [sum(constants[n] * c for n, c in work.items()) + constants["run"] for *_, work, _ in known]
    before = {(k[0], k[1]): (cost, k[4]) for k, cost in zip(known, costs_of, strict=True) if k[2] == "expand"}
    off = defaultdict(list)
    for (path, index, lowering, _, ns), cost in zip(known, costs_of, strict=True):
        guessed, taken = before[path, index]
        off[lowering].append(math.log(guessed / cost * ns / taken))
    print("| lowering | graphs | typically | 9 of 10 below | largest |\n|---|---|---|---|---|")
    for lowering, errors in off.items():
        cells = [np.median(errors), np.quantile(errors, 0.9), max(errors)]
        print(f"| {lowering} | {len(errors)} | " + " | ".join(f"{math.exp(e):.2f}x" for e in cells) + " |")


if __name__ == "__main__":
    main()
