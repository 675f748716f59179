"""Measures graphs that are lowered in torch, eager and compiled, against the model itself.

    python benchmarks/in_torch.py --json FILE               every graph, one thread
    python benchmarks/in_torch.py --json FILE --only ssim   some graphs
    python benchmarks/in_torch.py --json FILE --device cuda on a GPU; with onnxruntime's provider for it, too

All columns of a row run in turns, in this process, in blocks. A cell holds the time of the model over that of
the column (above 1: faster than the model), and half of its 95 % interval. ``kept`` is the captured graph in
which nothing is lowered: the original of tuning. ``control`` is the model again.

Eager rows are against the model as it is, compiled rows against ``torch.compile(model)``. Rows of
``onnxruntime`` have one column: the file that was tuned for the device against the stock export, both there.

Needs ``pip install -e '.[test]'`` and, for the compiled rows, a C++ compiler.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

# As in speed.py: threads that spin slow down the next measurement.
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"

import torch
from graphs import Graph, Model, gaussian_blur
from more_graphs import ALL
from tables import cell, header, line
from torch import nn

import export
from fx_passes.capture.inference import capture_for_inference
from fx_passes.lower import PLAN, lower
from fx_passes.plan import Choice, Plan
from fx_passes.resample.lowerable import lowerable_sites
from fx_passes.timing.blocks import ratio_of, time_blocks, typical

# A torchmetrics module counts its calls in an attribute. As a constant it would cause a compilation per call.
torch._dynamo.config.allow_unspec_int_on_nn_module = True  # noqa: SLF001 - there is no public switch

COLUMNS = ("kept", "static", "tuned", "control")
# Calls until torch.compile is done, as in contestants.py.
WARM_UP = 3
# The providers of onnxruntime for the devices of torch.
PROVIDERS = {"cpu": "onnxruntime", "cuda": "onnxruntime:CUDA"}
# Columns differ by rounding: relative, and absolute.
SAME = 1e-3


ROWS = {"blur5": Graph("kornia GaussianBlur2d 5x5", partial(gaussian_blur, 5, 256)), **ALL}


def built(name: str, device: str) -> Model:
    """The model and its inputs on a device."""
    torch.manual_seed(0)
    model, inputs = ROWS[name].build()
    return model.eval().to(device), tuple(x.to(device) for x in inputs)


def on(device: str, way: Callable[..., Any], inputs: tuple[Any, ...]) -> Callable[[], Any]:
    """A run that ends when the device has ended."""
    if device == "cpu":
        return lambda: way(*inputs)
    wait = torch.get_device_module(device).synchronize
    return lambda: (way(*inputs), wait())


def measure(name: str, runs: str, device: str, budget: float, seconds: float) -> dict[str, Any]:
    """One row, as JSON."""
    torch.compiler.reset()
    model, inputs = built(name, device)
    compiled: Callable[[nn.Module], Any] = torch.compile if runs == "compiled" else lambda module: module
    with torch.no_grad():
        tuned = lower(model, "tuned", inputs, runs=runs, budget=budget)  # type: ignore[arg-type]
        graphs = [lower(model, kept_plan(model, inputs), inputs), lower(model, "static", inputs), tuned]
        expected, original = model(*inputs), compiled(model)
        ways = [original, *map(compiled, graphs), original]
        for way in ways:
            for _ in range(WARM_UP):
                torch.testing.assert_close(way(*inputs), expected, rtol=SAME, atol=SAME)
        openers = [lambda way=way: on(device, way, inputs) for way in ways]
        blocks = time_blocks(openers, seconds=seconds, fewest_rounds=3)
    times = [[typical(of_one) for of_one in block] for block in blocks]
    ratios = [ratio_of([block[0] / block[which] for block in times]) for which in range(1, len(ways))]
    plan: Plan = tuned.meta[PLAN]
    return {
        **_facts(name, runs, device, inputs),
        "model_ms": min(block[0] for block in times),
        "columns": {
            column: {"ratio": ratio.value, "ci95": list(ratio.ci95), "blocks": len(blocks)}
            for column, ratio in zip(COLUMNS, ratios, strict=True)
        },
        "plan": json.loads(plan.to_json()),
    }


def _facts(name: str, runs: str, device: str, inputs: tuple[Any, ...]) -> dict[str, Any]:
    shapes, title = [list(x.shape) for x in inputs], ROWS[name].title
    threads = torch.get_num_threads()
    return {
        "name": name,
        "title": title,
        "inputs": shapes,
        "runs": runs,
        "device": device,
        "threads": threads,
    }


def measure_file(name: str, device: str, budget: float, seconds: float) -> dict[str, Any]:
    """The row of onnxruntime, as JSON. Without its provider for the device, it has the reason."""
    model, inputs = built(name, "cpu")
    facts = _facts(name, "onnxruntime", device, inputs)
    with tempfile.TemporaryDirectory() as folder:
        try:
            report = export.optimize(
                model,
                inputs,
                Path(folder, "tuned.onnx"),
                target=PROVIDERS[device],
                budget=budget,
                seconds=seconds,
            )
        except Exception as error:  # noqa: BLE001 - a failure is a result
            return {**facts, "columns": {}, "failed": str(error), "plan": {"sites": {}}}
    plan, speed = json.loads(report.plan.to_json()), report.speed
    if speed is None:
        return {**facts, "columns": {}, "failed": "the file is the stock export", "plan": plan}
    tuned = {"ratio": speed.speedup, "ci95": list(speed.ci95), "blocks": len(speed.blocks)}
    return {**facts, "model_ms": speed.baseline_ms, "columns": {"tuned": tuned}, "plan": plan}


def kept_plan(model: nn.Module, inputs: tuple[Any, ...]) -> Plan:
    """The plan of tuning if it lowers nothing."""
    sites, _ = lowerable_sites(capture_for_inference(model, inputs).graph_module)
    return Plan({site.id: Choice(site.key, None) for site in sites}, shares=False)


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as a markdown table."""
    lines = header("graph", "input", "runs", "model", *COLUMNS, "lowered by tuning")
    for row in rows:
        shapes = ", ".join("x".join(map(str, shape)) for shape in row["inputs"])
        cells = [cell(row["columns"][column]) if column in row["columns"] else "" for column in COLUMNS]
        sites = row["plan"]["sites"].values()
        count = sum(site["lowering"] != "expand" for site in sites)
        model = f"{row['model_ms']:.3f} ms" if "model_ms" in row else row.get("failed", "")
        lines.append(line(row["title"], shapes, row["runs"], model, *cells, f"{count} of {len(sites)}"))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, required=True, help="where the results go")
    parser.add_argument("--only", nargs="+", choices=ROWS, default=list(ROWS), metavar="NAME")
    ways = ("eager", "compiled", "onnxruntime")
    parser.add_argument("--runs", nargs="+", choices=ways, help="default: eager compiled; on a GPU, all")
    parser.add_argument("--device", choices=PROVIDERS, default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--budget", type=float, default=30.0, help="seconds of tuning for each row")
    parser.add_argument("--seconds", type=float, default=10.0, help="of measuring for each row")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = []
    for runs in arguments.runs or (ways if arguments.device != "cpu" else ways[:2]):
        for name in arguments.only:
            limits = arguments.device, arguments.budget, arguments.seconds
            file = runs == "onnxruntime"
            rows.append(measure_file(name, *limits) if file else measure(name, runs, *limits))
            arguments.json.write_text(json.dumps({"schema": "fx-passes/in-torch/1", "rows": rows}, indent=1))
            print(table(rows[-1:]).splitlines()[-1], flush=True)
    print(f"\n{table(rows)}")


if __name__ == "__main__":
    main()
