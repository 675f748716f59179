"""Measures models that are exported with open sizes, against the stock export with the same open sizes.

    python benchmarks/open_sizes.py                              every graph, with one thread
    python benchmarks/open_sizes.py --quick --only ssim blur11   some graphs, and short

Each graph is exported with fixed sizes and with open ones, by the stock exporter and by the optimizer. Two
files of one kind are timed in turn in onnxruntime, in blocks of fresh sessions: with fixed sizes at those of
the example, with open sizes also at smaller and at larger ones. A cell holds the typical ratio (above 1:
faster than the stock export) and half of its 95 % interval, if there are enough blocks. The JSON also has the
times, and the control of the stock export against itself.

The share is the gain with open sizes over that with fixed sizes, both at the sizes of the example. Sites are
convolutions that share a kernel or have one channel. A goal that is missed within the interval is marked.

The outputs of both files are compared at each size. A graph fails if they differ. What is said below the
table for a site that is not lowered is the reason of the optimizer. If no lowering was chosen, it is what the
rules count for the best proposal, and the refusal of each lowering.

Needs ``pip install -e '.[test,bench]'`` and, for Composer's blur pool, ``pip install --no-deps mosaicml``.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

# As in speed.py: threads of torch that spin would slow down what is measured next.
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"

import numpy as np
import torch
from contestants import reason
from open_graphs import OPEN_GRAPHS, OpenGraph
from open_report import chosen, goals_of, lowerings, missed, open_table, reasons, reasons_of
from tables import as_json, timed_against
from torch import Tensor, nn

import export
from export.report.result import Report
from export.runtime.arrays import tensor_arrays
from export.runtime.environment import environment
from export.runtime.session import Array, open_session, run
from export.runtime.target import Target
from export.write_onnx.exporter import distinct_tensors, stock_export
from fx_passes.capture.open_sizes import open_sizes
from fx_passes.graph.torch_internals import as_exporting

SCHEMA = "fx-passes/open-sizes/1"
THREADS = 1
TARGET = Target(threads=THREADS)
# The largest difference that counts as rounding, relative to the largest output. Integers are rounded
# numbers: they may differ by one.
SAME = 1e-4
Measured = dict[str, Any]
Sized = tuple[tuple[int, ...], tuple[Tensor, ...]]


@dataclass(frozen=True)
class Options:
    """How to measure one row.

    Args:
        lowering: how the optimizer chooses.
        budget: seconds that the optimizer may spend on timing its candidates.
        seconds: for each pair of files. It takes longer if one of them has not run often enough.
    """

    lowering: str
    budget: float
    seconds: float


@dataclass(frozen=True)
class Pair:
    """The stock export and the optimized file of one graph, both with fixed or both with open sizes."""

    stock: Path
    ours: Path
    report: Report

    def facts(self) -> Measured:
        """How many sites there are, how many are lowered, and why the others are not, as JSON."""
        shared = [finding for finding in self.report.findings if finding.shared]
        lowered = [f for f in shared if self.report.lowering_of(f) not in (None, "expand")]
        return {
            "sites": len(shared),
            "lowered": len(lowered),
            "lowerings": chosen(self.report),
            "not_lowered": Counter(reasons_of(self.stock, self.report).values()),
        }


def measure_row(name: str, options: Options) -> dict[str, Any]:
    """One graph as JSON. What cannot be done has ``failed`` in its place."""
    torch.manual_seed(0)
    torch.set_num_threads(THREADS)
    graph = OPEN_GRAPHS[name]
    row: dict[str, Any] = {"name": name, "title": graph.title}
    try:
        model, inputs = graph.build()
        model.eval()
        row["inputs"] = [list(tensor.shape) for tensor in inputs]
        shapes = graph.dynamic_shapes(model, inputs)
    except Exception as error:  # noqa: BLE001 - a package may raise anything
        return row | {"failed": reason(error)}
    with tempfile.TemporaryDirectory() as folder:
        fixed, pair = measure_pair(model, inputs, None, Path(folder) / "fixed", options)
        if pair is not None:
            fixed |= compare(pair, inputs, options)
        opened_at, pair = measure_pair(model, inputs, shapes, Path(folder) / "open", options)
        if pair is not None:
            opened_at["sizes"] = [
                {"sizes": list(sizes), **compare(pair, given, options, timed=sizes not in graph.checked)}
                for sizes, given in sizes_of(graph, inputs)
            ]
    row |= {"fixed": fixed, "open": opened_at}
    return row | {"goals": goals_of(graph, row)}


def measure_pair(
    model: nn.Module, inputs: tuple[Any, ...], shapes: Any, folder: Path, options: Options
) -> tuple[Measured, Pair | None]:
    """Both exports of a graph, with the facts about them; or why there is none.

    Args:
        shapes: the open sizes, for torch. None: all sizes are fixed.
    """
    folder.mkdir()
    try:
        inputs = distinct_tensors(inputs)
        with as_exporting():
            sizes = open_sizes(model, inputs, shapes)
        accepted = sizes.dynamic_shapes if sizes else None
        stock = stock_export(model, inputs, folder / "stock.onnx", dynamic_shapes=accepted)
        report = export.optimize(
            model,
            inputs,
            folder / "ours.onnx",
            lowering=options.lowering,
            dynamic_shapes=shapes,
            threads=THREADS,
            budget=options.budget,
            seconds=0,  # this file measures it
        )
        pair = Pair(stock, folder / "ours.onnx", report)
        return pair.facts() | {"notes": list(report.sizes)}, pair
    except Exception as error:  # noqa: BLE001 - exporters may raise anything
        return {"failed": reason(error)}, None


def sizes_of(
    graph: OpenGraph, inputs: tuple[Tensor, ...]
) -> list[tuple[tuple[int, ...], tuple[Tensor, ...]]]:
    """The values of the open sizes, and inputs of these sizes. The example is the first."""
    here = tuple(inputs[0].shape[dim] for dim in graph.dims)
    others = (graph.smaller, graph.larger, *graph.checked)
    return [(here, inputs), *((sizes, graph.at(inputs, sizes)) for sizes in others)]


def compare(pair: Pair, inputs: Sequence[Tensor], options: Options, *, timed: bool = True) -> Measured:
    """Both files on ``inputs``: the difference of their outputs and, if it is rounding, their times."""
    arrays = tensor_arrays(inputs)
    try:
        outputs = [run(open_session(file, threads=THREADS), arrays) for file in (pair.stock, pair.ours)]
        difference = max(map(difference_of, *outputs))
        if difference > 1:
            said = f"its outputs differ by {difference:.1f} times what may be rounding"
            return {"failed": said, "difference": difference}
        if not timed:
            return {"difference": difference}
        gc.collect()
        contestants = [partial(TARGET.opened, file, arrays) for file in (pair.stock, pair.ours)]
        return {"difference": difference, **as_json(timed_against(contestants, THREADS, options.seconds))}
    except Exception as error:  # noqa: BLE001 - a failure is a result
        return {"failed": reason(error)}


def difference_of(wanted: Array, got: Array) -> float:
    """The largest difference of two outputs over what may be rounding; NaN in one of them: inf."""
    if got.shape != wanted.shape:
        raise ValueError(f"its output has the shape {got.shape}, the stock export's {wanted.shape}")
    allowed = 1.0 if wanted.dtype.kind in "iu" else SAME * max(float(np.abs(wanted).max()), 1e-30)
    worst = np.abs(got.astype(np.float64) - wanted.astype(np.float64)).max() / allowed
    return float(np.nan_to_num(worst, nan=np.inf))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, help="where the results go")
    parser.add_argument("--only", nargs="+", choices=OPEN_GRAPHS, default=list(OPEN_GRAPHS), metavar="NAME")
    parser.add_argument("--lowering", choices=("tuned", "static"), default="tuned")
    parser.add_argument("--budget", type=float, default=60.0, help="seconds of tuning for each file")
    parser.add_argument("--quick", action="store_true", help="half a second for each pair, not three")
    return parser.parse_args()


def main() -> None:
    arguments = parsed()
    options = Options(arguments.lowering, arguments.budget, 0.5 if arguments.quick else 3.0)
    result = {
        "schema": SCHEMA,
        "environment": environment(TARGET),
        "lowering": options.lowering,
        "tuning_budget_s": options.budget,
        "pair_s": options.seconds,
        "rows": (rows := []),
    }
    for name in arguments.only:
        print(name, file=sys.stderr, flush=True)
        rows.append(measure_row(name, options))
        if arguments.json:
            arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    print(open_table(rows))
    print("\nGoals that are missed:", *(missed(rows) or ["none"]), sep="\n")
    print("\nLowered sites:", *(lowerings(rows) or ["none"]), sep="\n")
    print("\nSites that are not lowered:", *(reasons(rows) or ["none"]), sep="\n")


if __name__ == "__main__":
    main()
