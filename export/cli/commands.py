"""The commands: parse and print, nothing else."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import click

from export.cli.exit_codes import ExitCodes
from export.cli.files import file_of, require_apart, writable
from export.cli.numbers import whole_numbers
from export.cli.optimized import optimized
from export.cli.tune_at import parse_tune_at
from export.loading import load_model
from export.read_onnx.model import read_model
from export.read_onnx.sites import analyse
from export.report.result import CHECK_SCHEMA, count_shared, find_json
from export.report.terminal import (
    print_equivalence,
    print_report,
    print_route,
    print_sites,
    progress,
    write_json,
)
from export.runtime.target import parse_target, targets_of
from export.stages import Progress
from export.tune.options import LOWERINGS, Options, Timings
from export.tune.plan_file import read_plan, resume, write_plan
from export.tune.tune_at import Batch
from export.verify.equivalence import check_equivalence
from fx_passes.capture.inference import capture_for_inference
from fx_passes.errors import NotEquivalentError, NothingGainedError
from fx_passes.find.find_kernels import judge_graph
from fx_passes.records import EXACTNESS, Exactness, Finding

_INPUT_HELP = "Sizes of an example input, as 1x3x224x224, x=1x3x224x224 or 4x16:int64; once for each input."
_TARGET_HELP = "Where the file will run: onnxruntime[:PROVIDER] or openvino. It is also verified there."
_JSON_HELP = "Write the result as JSON to FILE, or to standard output for -."


@click.group(cls=ExitCodes, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="fx-passes")
@click.option("-v", "--verbose", is_flag=True, help="Log what the stages do to standard error.")
def main(verbose: bool) -> None:
    """Find convolutions whose groups repeat one kernel, keep it once, export verified ONNX.

    MODEL is path/to/file.py:attr, package.module:attr, model.pt2 or model.onnx. attr is an nn.Module, or a
    callable without arguments that returns a module or (module, example_inputs).
    """
    logging.basicConfig(level=logging.DEBUG if verbose else logging.ERROR, stream=sys.stderr)
    if not verbose:
        warnings.simplefilter("ignore")
        logging.getLogger("torch").setLevel(logging.CRITICAL)  # our message says what torch raises


@main.command()
@click.argument("model")
@click.option("--input", "inputs", multiple=True, metavar="SIZES", help=_INPUT_HELP)
@click.option("--json", "json_file", metavar="FILE", help=_JSON_HELP, callback=writable)
def find(model: str, inputs: tuple[str, ...], json_file: str | None) -> None:
    """List every convolution that shares a kernel, or the reason why it does not."""
    require_apart({"--json": json_file}, [file_of(model)])
    with progress() as show:
        show(f"loading {model}")
        route, rejected, findings = _found(model, inputs, show)
    if json_file:
        write_json(find_json(model, route, findings), json_file)
    if json_file != "-":
        print_route(route, rejected)
        print_sites(findings)
        click.echo(f"{count_shared(findings)} of {len(findings)} candidate convolutions share a kernel")


def _found(model: str, inputs: tuple[str, ...], show: Progress) -> tuple[str, str | None, Sequence[Finding]]:
    """How a graph was got, why not by the route before, and what was found in it."""
    if model.endswith(".onnx"):
        if inputs:
            said = "an ONNX file states its inputs, and find does not run it"
            raise click.BadParameter(said, param_hint="--input")
        return "onnx", None, analyse(read_model(Path(model))).findings
    loaded = load_model(model, inputs)
    show("capturing the graph")
    captured = capture_for_inference(loaded.model, loaded.example_inputs)
    show("finding kernels")
    verdicts = judge_graph(captured.graph_module, frozen=True)
    return captured.route, captured.rejected, [verdict.finding for verdict in verdicts]


@main.command()
@click.argument("model")
@click.option("-o", "--output", required=True, metavar="OUT.onnx", help="The file to write.")
@click.option("--input", "inputs", multiple=True, metavar="SIZES", help=_INPUT_HELP)
@click.option(
    "--lowering",
    type=click.Choice(LOWERINGS),
    default="tuned",
    show_default=True,
    help="tuned: what is fastest here; static: by rules, made for onnxruntime, the same everywhere; "
    "expand: equal bit for bit.",
)
@click.option(
    "--exactness",
    type=click.Choice(EXACTNESS),
    default="finite",
    show_default=True,
    help="The least exact that may be chosen: equal bits; other rounding; that, and for finite inputs only.",
)
@click.option(
    "--budget",
    type=click.FloatRange(1),
    default=60,
    show_default=True,
    help="Seconds of timing to tune; exports come on top.",
)
@click.option(
    "--plan",
    "plan_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Do what a saved plan says; nothing is timed to decide.",
)
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
@click.option("--target", default="onnxruntime", show_default=True, help=_TARGET_HELP)
@click.option(
    "--dynamic",
    multiple=True,
    metavar="SPEC",
    help="Open sizes: batch (dimension 0 of every input), or INPUT:DIM[,DIM] by name or number. "
    "DIM=NAME[LOW..HIGH] gives a size a name and bounds.",
)
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
@click.option("--json", "json_file", metavar="FILE", help=_JSON_HELP, callback=writable)
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
    json_file: str | None,
    strict: bool,
) -> None:
    """Write an ONNX file with each shared kernel stored once and computed fast, verified and measured."""
    require_apart({"-o": output, "--json": json_file, "--save-plan": save_plan}, [file_of(model), plan_file])
    plan = read_plan(plan_file) if plan_file else None
    if save_plan == "-":
        raise click.BadParameter("a plan is saved to a file", param_hint="--save-plan")
    # Whatever is to be decided: a file that is no plan is not overwritten.
    targets = targets_of(target, threads)
    timings = resume(Path(save_plan), *targets) if save_plan else Timings()
    options = Options(lowering, exactness, plan, timings, targets, budget, seconds)
    wanted = [*map(parse_tune_at, tune_at), *map(Batch, batch_sizes)]
    report = optimized(model, inputs, dynamic, wanted, Path(output), options)
    if save_plan:
        write_plan(report.plan, Path(save_plan))
    if json_file:
        write_json(report.to_json(), json_file)
    if json_file != "-":
        print_report(report)
    if strict and not report.rewritten:
        raise NothingGainedError("nothing was shared (--strict)")
    if strict and not (report.speed and report.speed.faster):
        raise NothingGainedError("nothing got measurably faster (--strict)")


@main.command()
@click.argument("baseline", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("optimized", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--target", default="onnxruntime", show_default=True, help="Another runtime to compare in.")
@click.option("--json", "json_file", metavar="FILE", help=_JSON_HELP, callback=writable)
def check(baseline: Path, optimized: Path, target: str, json_file: str | None) -> None:
    """Compare two ONNX files in onnxruntime, and in another runtime, on inputs made for the purpose."""
    require_apart({"--json": json_file}, [baseline, optimized])
    where = parse_target(target)
    with progress() as show:
        show("checking equivalence")
        result = check_equivalence(
            baseline, optimized, target=where, progress=lambda case: show(f"checking: {case}")
        )
    if json_file:
        files = {"baseline": str(baseline), "optimized": str(optimized)}
        write_json({"schema": CHECK_SCHEMA, **files, "equivalence": result.to_json()}, json_file)
    if json_file != "-":
        print_equivalence(result)
    if not result.passed:
        raise NotEquivalentError(f"not equivalent: {result.mismatch}")
