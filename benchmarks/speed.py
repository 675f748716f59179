"""Measures the speed of lowered graphs, against the stock export and against other runtimes.

    python benchmarks/speed.py --json FILE                      everything, one thread and then two
    python benchmarks/speed.py --json FILE --quick --only ssim  some graphs, and short

Every column is timed against the stock export in onnxruntime, in this process and in turn, in blocks of fresh
sessions. Each block gives one ratio. A cell holds the typical ratio (above 1: faster than the stock export)
and half of its 95 % interval, if there are enough blocks. The JSON also has the times, and the control of the
stock export against itself.

The printed time of the stock export is the one measured beside the lowered file. Beside another column it may
differ, because each column leaves other data in the caches. A ratio always refers to the time beside it.
Goals that compare two other columns time those two in turn. Ours is tuned for each runtime by itself:
onnxruntime, OpenVINO, PyTorch, and torch.compile.

A column fails if its outputs differ from those of the stock export, or if it raises an error. The JSON has
the reason. ``python benchmarks/tables.py FILE`` prints the tables again.

Needs ``pip install -e '.[test,bench]'`` and, for torch.compile, a C++ compiler.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

# OpenMP threads that spin after torch has used them slow down the next measurement. The sessions of
# onnxruntime do not spin, either. This must be set before torch is imported.
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"

import torch
from contestants import (
    COLUMNS,
    COLUMNS_OURS,
    STOCK,
    Contestant,
    Lowered,
    others,
    ours,
    prepare,
    reason,
    stock,
)
from goals import goals_of, judge
from more_graphs import ALL
from tables import as_json, speed_tables, timed_against
from torch import nn

import export
from export.report.result import Report
from export.runtime.environment import environment
from export.runtime.target import Target
from fx_passes.lower import lower
from fx_passes.plan import Plan

SCHEMA = "fx-passes/benchmark/1"
PACKAGES = (
    "openvino",
    "opencv-python-headless",
    "kornia",
    "torchmetrics",
    "diffusers",
    "timm",
    "transformers",
)
Measured = dict[str, Any]


@dataclass(frozen=True)
class Options:
    """How to measure one row.

    Args:
        lowering: how the optimizer chooses.
        budget: seconds that the optimizer may spend on timing its candidates.
        seconds: for each pair of columns. It takes longer if one of them has not run often enough.
    """

    threads: int
    lowering: str
    budget: float
    seconds: float


def measure_row(name: str, options: Options) -> dict[str, Any]:
    """One graph at one number of threads, as JSON. It has ``failed`` if there is nothing to compare with."""
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    torch.compiler.reset()  # compiled code is for one number of threads
    row: dict[str, Any] = {"name": name, "title": ALL[name].title, "threads": options.threads}
    try:
        model, inputs = ALL[name].build()
        row["inputs"] = [list(tensor.shape) for tensor in inputs]
        with tempfile.TemporaryDirectory() as folder:
            return row | measure_graph(name, model.eval(), inputs, Path(folder), options)
    except Exception as error:  # noqa: BLE001 - exporters and runtimes may raise anything
        return row | {"failed": reason(error)}


def measure_graph(
    name: str, model: nn.Module, inputs: tuple[Any, ...], folder: Path, options: Options
) -> dict[str, Any]:
    """All columns and goals of one graph, and the choices at its sites."""
    file, baseline = stock(model, inputs, folder, options.threads)
    expected = baseline.run()
    factories = others(ALL[name], model, inputs, file, expected, options.threads)
    lowered, failed = None, {}
    try:
        lowered = optimize(model, inputs, folder, options)
        factories |= ours(lowered, inputs, options.threads)
    except Exception as error:  # noqa: BLE001 - a failure is a result
        failed = dict.fromkeys(COLUMNS_OURS, reason(error))
    ready = {STOCK: baseline, **failed, **prepare(factories, expected)}
    columns = {column: compare(baseline, ready[column], options) for column in COLUMNS if column in ready}
    goals = []
    for goal in goals_of(name, lowered is not None and lowered.changed):
        if goal.against == STOCK:
            measured = columns[goal.column]
        else:
            measured = compare(ready[goal.against], ready[goal.column], options)
        goals.append(judge(goal, measured))
    return {
        "lowerings": [] if lowered is None else chosen(lowered.report.plan),
        "kept": {} if lowered is None else Counter(lowered.report.kept.values()),
        "columns": columns,
        "goals": goals,
    }


def optimize(model: nn.Module, inputs: tuple[Any, ...], folder: Path, options: Options) -> Lowered:
    """The files of the optimizer and the torch modules, each tuned where it runs. With ``--lowering static``
    they have the same lowerings."""

    def written(target: str) -> tuple[Path, Report]:
        file = folder / f"for_{target}.onnx"
        return file, export.optimize(
            model,
            inputs,
            file,
            lowering=options.lowering,
            threads=options.threads,
            target=target,
            budget=options.budget,
            seconds=0,  # this file measures it
        )

    def in_torch(runs: Literal["eager", "compiled"]) -> nn.Module:
        if options.lowering == "static":
            return lower(model, "static", inputs)
        return lower(model, "tuned", inputs, runs=runs, budget=options.budget)

    file, report = written("onnxruntime")
    return Lowered(file, lambda: written("openvino")[0], in_torch, report)


def chosen(plan: Plan) -> list[dict[str, Any]]:
    """The choice of the plan at each distinct site, and how many sites are equal to it."""
    by_key: dict[str, dict[str, Any]] = {}
    for site, choice in plan.choices.items():
        name = "expand" if choice.proposal is None else choice.proposal.name
        same = by_key.setdefault(choice.key, {"lowering": name, "count": 0, "first": site})
        same["count"] += 1
    return list(by_key.values())


def compare(baseline: Contestant | str, other: Contestant | str, options: Options) -> Measured:
    """``other`` against ``baseline``, in turn: typical times in milliseconds, and baseline / other."""
    if isinstance(baseline, str) or isinstance(other, str):
        return {"failed": baseline if isinstance(baseline, str) else other}
    gc.collect()
    gc.disable()
    try:
        with torch.no_grad():
            timing = timed_against([baseline.opened, other.opened], options.threads, options.seconds)
    except Exception as error:  # noqa: BLE001 - runtimes may raise anything
        return {"failed": reason(error)}
    finally:
        gc.enable()
    return as_json(timing)


def machine(threads: Sequence[int]) -> Measured:
    """The machine, and the versions of everything that is run or built here."""
    versions = {}
    for package in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    waiting = {"OMP_WAIT_POLICY": os.environ["OMP_WAIT_POLICY"]}
    return {**environment(Target(threads=max(threads))), **versions, **waiting, "threads": list(threads)}


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, required=True, help="where the results go")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--only", nargs="+", choices=ALL, default=list(ALL), metavar="NAME")
    parser.add_argument("--lowering", choices=("tuned", "static"), default="tuned")
    parser.add_argument("--budget", type=float, default=60.0, help="seconds of tuning for each graph")
    parser.add_argument("--quick", action="store_true", help="half a second for each column, not three")
    return parser.parse_args()


def main() -> None:
    arguments = parsed()
    seconds = 0.5 if arguments.quick else 3.0
    result = {
        "schema": SCHEMA,
        "environment": machine(arguments.threads),
        "lowering": arguments.lowering,
        "tuning_budget_s": arguments.budget,
        "column_s": seconds,
        "rows": (rows := []),
    }
    for threads in arguments.threads:
        options = Options(threads, arguments.lowering, arguments.budget, seconds)
        for name in arguments.only:
            print(f"{name}, {threads} thread(s)", file=sys.stderr, flush=True)
            rows.append(measure_row(name, options))
            arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    print(speed_tables(rows))


if __name__ == "__main__":
    main()
