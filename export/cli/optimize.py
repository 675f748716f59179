"""``fx-passes optimize``: writes a file that is verified and measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from export.cli.decide import dynamic_option, exactness_option, lowering_option, plan_option
from export.cli.files import file_of, require_apart, writable
from export.cli.group import input_option, main, model_argument
from export.cli.help import examples
from export.cli.loudness import loudness_options
from export.cli.notes import note_options
from export.cli.numbers import whole_numbers
from export.cli.optimized import optimized
from export.cli.results import Remembers, Results, results_options
from export.cli.tune_at import parse_tune_at
from export.runtime.target import targets_of
from export.tune.options import Options, Timings
from export.tune.plan_file import read_plan, resume, write_plan
from export.tune.tune_at import Batch
from fx_passes.errors import NothingGainedError
from fx_passes.records import Exactness


@main.command(
    cls=Remembers,
    short_help="Write an ONNX file, verified and measured.",
    epilog=examples(
        "fx-passes optimize my_model.py:build -o out.onnx",
        "fx-passes optimize my_model.py:build -o out.onnx --dynamic batch",
        "fx-passes optimize model.onnx -o out.onnx --lowering static --json -",
    ),
)
@model_argument
@click.option("-o", "--output", required=True, metavar="OUT.onnx", help="The file to write.")
@input_option
@lowering_option
@exactness_option
@click.option(
    "--budget",
    type=click.FloatRange(1),
    default=60,
    show_default=True,
    help="Seconds of timing to tune; exports come on top.",
)
@plan_option
@click.option(
    "--save-plan",
    metavar="FILE",
    callback=writable,
    help="Save what was decided; an interrupted tuning goes on from it.",
)
@click.option(
    "--threads",
    metavar="N[,N]",
    default="1",
    show_default=True,
    callback=whole_numbers,
    help="Threads when measuring; several numbers: tuned to be fast with each.",
)
@click.option(
    "--target",
    default="onnxruntime",
    show_default=True,
    help="Where the file will run: onnxruntime[:PROVIDER] or openvino. It is also verified there.",
)
@dynamic_option
@click.option(
    "--tune-at",
    multiple=True,
    metavar="SIZES",
    help="Further sizes to tune at, of all inputs: 1x3x480x640,1x2; or of some: x=1x3x480x640.",
)
@click.option(
    "--batch-sizes",
    metavar="N[,N]",
    callback=whole_numbers,
    help="Further batch sizes to tune at; the batch must be open (--dynamic batch).",
)
@click.option(
    "--seconds", type=click.FloatRange(0), default=10, show_default=True, help="Measure at most; 0: not."
)
@results_options
@note_options
@loudness_options
@click.option("--strict", is_flag=True, help="Exit 4 where nothing was shared, or nothing got faster.")
def optimize(
    model: str,
    output: str,
    inputs: tuple[str, ...],
    lowering: str,
    exactness: Exactness,
    budget: float,
    plan_file: Path | None,
    save_plan: str | None,
    threads: tuple[int, ...],
    target: str,
    dynamic: tuple[str, ...],
    tune_at: tuple[str, ...],
    batch_sizes: tuple[int, ...],
    seconds: float,
    results: Results,
    strict: bool,
    **notes: Any,
) -> None:
    """Write an ONNX file with each shared kernel stored once and computed fast, verified and measured."""
    require_apart({"-o": output, **results.files, "--save-plan": save_plan}, [file_of(model), plan_file])
    plan = read_plan(plan_file) if plan_file else None
    if save_plan == "-":
        raise click.BadParameter("a plan is saved to a file", param_hint="--save-plan")
    # Whatever is to be decided: a file that is no plan is not overwritten.
    targets = targets_of(target, threads)
    timings = resume(Path(save_plan), *targets) if save_plan else Timings()
    details = bool(results.page)
    options = Options(lowering, exactness, plan, timings, targets, budget, seconds, details=details, **notes)
    wanted = [*map(parse_tune_at, tune_at), *map(Batch, batch_sizes)]
    report = optimized(model, inputs, dynamic, wanted, Path(output), options)
    if save_plan:
        write_plan(report.plan, Path(save_plan))
    results.write(report)
    if strict and not report.rewritten:
        raise NothingGainedError("nothing was shared (--strict)")
    if strict and not (report.speed and report.speed.faster):
        raise NothingGainedError("nothing got measurably faster (--strict)")
