"""Measures how good the static rules are, on a grid of geometries.

Each geometry is timed in its original form and with every lowering.

    python benchmarks/grid.py --json FILE                    400 points of seed 0, and the table. Continues
                                                             an interrupted FILE
    python benchmarks/grid.py --json FILE --table            measures nothing; applies today's rules to FILE
    python benchmarks/grid.py --json FILE --check --seed 1   only the choices of `static`; exits 1 if a point
                                                             is below 0.95x after a second measurement
    python benchmarks/grid.py --json FILE --volumes          another grid: volumes of any rank, and banks

Everything runs in onnxruntime on one thread, in turn. Times are lower quartiles, because other work of the
machine only makes times longer. If ``static`` keeps a site, the file is unchanged, and its gain is 1.00x. The
share of the possible gain is the sum of the logarithms of the gains with ``static``, divided by the same sum
for the fastest way of each point (which may be the original).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

os.environ["OMP_WAIT_POLICY"] = "PASSIVE"

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import torch
from geometries import KINDS, Point, build, draw
from torch import Tensor, nn

from export.runtime.session import Array, open_session, run
from export.write_onnx.exporter import export_program, fold_constants
from export.write_onnx.library import Library, model_of
from fx_passes.capture.inference import capture_for_inference
from fx_passes.choose.static_rules import static_choice
from fx_passes.graph.clone import clone_module
from fx_passes.lower import lower_in_place
from fx_passes.lowerings import propose
from fx_passes.plan import Choice, Plan
from fx_passes.resample.lowerable import lowerable_sites

KEPT = "expand"
LOSS, AGAIN = 0.95, 0.97
_SAMPLE_MS, _BATCH = 0.4, 48


@dataclass(frozen=True)
class Prepared:
    """The graphs of a point: the original first, then one for each way to compute its sites."""

    index: int
    point: Point
    static: str
    names: tuple[str, ...]
    graphs: tuple[nn.Module, ...]
    inputs: tuple[Tensor, ...]


def prepared(index: int, point: Point, check: bool) -> Prepared:
    """Every proposal for a point. With ``check``: only the choice of the rules."""
    model, inputs = build(point, index)
    captured = capture_for_inference(model, inputs).graph_module
    sites, _ = lowerable_sites(captured)
    first = sites[0] if sites else None
    chosen = static_choice(first, "finite") if first else None
    proposals = propose(first.resample, first.kernel, siblings=first.siblings)[0] if first else []
    if check:
        proposals = [chosen] if chosen is not None else []
    graphs: list[nn.Module] = [model]
    for proposal in proposals:
        lowered = clone_module(captured, compiled=False)
        plan = Plan({site.id: Choice(site.key, proposal) for site in sites})
        lower_in_place(lowered, sites, plan)
        graphs.append(lowered)
    names = (KEPT, *(proposal.name for proposal in proposals))
    return Prepared(index, point, chosen.name if chosen else KEPT, names, tuple(graphs), inputs)


def static_name(index: int, point: Point) -> str:
    """The choice of the rules for a point."""
    sites, _ = lowerable_sites(capture_for_inference(*build(point, index)).graph_module)
    chosen = static_choice(sites[0], "finite") if sites else None
    return chosen.name if chosen else KEPT


class _Whole(nn.Module):
    """Wraps a graph with several inputs or outputs as one with a single input and output. Its cost is the
    same for all graphs."""

    def __init__(self, graph: nn.Module, batches: Sequence[int]) -> None:
        super().__init__()
        self.graph, self.batches = graph, list(batches)

    def forward(self, x: Tensor) -> Tensor:
        outputs = self.graph(*x.split(self.batches))
        return outputs if isinstance(outputs, Tensor) else torch.cat([y.neg() for y in outputs])


def exported(points: Sequence[Prepared]) -> list[list[bytes]]:
    """The ONNX files of all graphs, written by a single call of the exporter."""
    entries, examples = [], []
    for point in points:
        for graph in point.graphs:
            several = len(point.inputs) > 1
            entries.append(_Whole(graph, [len(x) for x in point.inputs]) if several else graph)
            examples.append(torch.cat(point.inputs).clone())
    library = export_program(Library(entries), examples, None).model
    fold_constants(library)
    files = iter([ir.to_proto(model_of(library, i)).SerializeToString() for i in range(len(entries))])
    return [[next(files) for _ in point.graphs] for point in points]


def timed(files: Sequence[bytes], inputs: Array, seconds: float) -> list[float]:
    """Milliseconds of each file. All files run in turn, and much slower ones are dropped early."""
    sessions = [open_session(file) for file in files]
    repeats = [max(1, round(_SAMPLE_MS / max(_once(session, inputs, 2), 1e-3))) for session in sessions]
    samples: list[list[float]] = [[] for _ in sessions]
    alive, end = list(range(len(sessions))), time.perf_counter() + seconds
    while len(samples[0]) < 4 or (time.perf_counter() < end and len(samples[0]) < 60):
        for index in alive if len(samples[0]) % 2 else reversed(alive):
            samples[index].append(_once(sessions[index], inputs, repeats[index]))
        if len(samples[0]) == 4:
            limit = 1.7 * min(map(_typical, samples))
            alive = [i for i in alive if i == 0 or _typical(samples[i]) < limit]
    return [_typical(times) for times in samples]


def _once(session: ort.InferenceSession, inputs: Array, repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        run(session, [inputs])
    return (time.perf_counter() - start) * 1e3 / repeats


def _typical(times: Sequence[float]) -> float:
    return float(np.quantile(times, 0.25))


def measured(points: Sequence[Prepared], seconds: float) -> Iterator[dict[str, Any]]:
    """A row for each point. If `static` seems slower, the point is measured again, for longer."""
    for point, files in zip(points, exported(points), strict=True):
        x = torch.cat(point.inputs).numpy()
        times = dict(zip(point.names, timed(files, x, seconds), strict=True))
        chosen = [0, point.names.index(point.static)]
        again = 0
        while point.static != KEPT and times[KEPT] / times[point.static] < AGAIN and again < 3:
            pair = timed([files[i] for i in chosen], x, 4 * seconds)
            times.update({KEPT: pair[0], point.static: pair[1]})
            again += 1
        yield {"index": point.index, "title": point.point.title, "static": point.static, "ms": times}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, required=True, metavar="FILE", help="what has been measured")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--points", type=int, default=400)
    parser.add_argument("--check", action="store_true", help="only what static chooses; exit 1 below 0.95x")
    parser.add_argument("--volumes", action="store_true", help="the grid of volumes")
    parser.add_argument("--table", action="store_true", help="measure nothing")
    parser.add_argument("--seconds", type=float, default=1.0, help="of timing for each point")
    parser.add_argument(
        "--limit", type=float, default=math.inf, help="stop after so many seconds, to go on later"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    known: dict[str, Any] = json.loads(options.json.read_text()) if options.json.exists() else {}
    rows: list[dict[str, Any]] = known.get("rows", [])
    points = partial(draw, options.seed, volumes=options.volumes)
    setting = {"seed": options.seed, "check": options.check, "volumes": options.volumes}
    if rows and {name: known.get(name, False) for name in setting} != setting:
        parser.error(f"{options.json} holds another grid")
    if options.table:
        rows = [{**row, "static": static_name(row["index"], points(row["index"]))} for row in rows]
    start, done = time.perf_counter(), {row["index"] for row in rows}
    todo = [] if options.table else [i for i in range(options.points) if i not in done]
    while todo and time.perf_counter() - start < options.limit:
        batch: list[Prepared] = []
        while todo and sum(len(p.graphs) for p in batch) < _BATCH:
            batch.append(prepared(todo[0], points(todo.pop(0)), options.check))
        for row in measured(batch, options.seconds):
            rows.append(row)
            print(
                f"{row['index']:4} {gain(row):6.2f}x of {best(row):6.2f}x  {row['static']:40} {row['title']}"
            )
        options.json.write_text(json.dumps({**setting, "rows": rows}, indent=0))
        print(f"{len(rows)} points, {time.perf_counter() - start:.0f} s", flush=True)
    print(table(rows, points))
    losses = [row for row in rows if gain(row) < LOSS]
    for row in losses:
        print(f"below {LOSS}x: {row['index']} {gain(row):.2f}x {row['static']}: {row['title']}")
    return 1 if losses else 0


def gain(row: dict[str, Any]) -> float:
    """The gain with the choice of ``static``. 1 if it keeps the original file."""
    return float(row["ms"][KEPT] / row["ms"][row["static"]])


def best(row: dict[str, Any]) -> float:
    """The gain with the fastest way."""
    return float(row["ms"][KEPT] / min(row["ms"].values()))


def table(rows: Sequence[dict[str, Any]], points: Callable[[int], Point]) -> str:
    """A markdown table: for each kind of geometry, the gains of the rules, and their worst point."""
    every = any(
        set(row["ms"]) - {KEPT, row["static"]} for row in rows
    )  # more was timed than the choice of the rules
    lines = ["| geometry | points | lowered | possible | static | share | worst |", "|" + "---|" * 7]
    kinds: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        point = points(row["index"])
        kinds.setdefault(f"{point.kind} {point.dim}-D", []).append(row)
    order = [f"{kind} {dim}-D" for kind in KINDS for dim in (1, 2, 3)]
    for name in [*sorted(kinds, key=order.index), "all"]:
        some = kinds.get(name, list(rows))
        possible, static = (sum(math.log(of(row)) for row in some) for of in (best, gain))
        lowered = sum(row["static"] != KEPT for row in some)
        means = [f"{math.exp(total / max(len(some), 1)):.2f}x" for total in (possible, static)]
        means[0] = means[0] if every else ""
        share = f"{static / possible:.0%}" if possible > 0 and every else ""
        worst = f"{min(map(gain, some), default=1.0):.2f}x"
        lines.append("| " + " | ".join([name, str(len(some)), str(lowered), *means, share, worst]) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
