"""The command line: parse and print, nothing else."""

from __future__ import annotations

import logging
import signal
import sys
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from export.dynamic import dynamic_shapes
from export.loading import load_model
from export.pipeline import optimize as run_optimize
from export.report.result import CHECK_SCHEMA, count_shared, find_json
from export.report.terminal import print_route, print_sites, progress, write_json
from export.report.text import summary_lines
from export.tune.options import LOWERINGS
from export.tune.plan_file import read_plan, resume, write_plan
from export.verify.equivalence import check_equivalence
from fx_passes.capture.inference import capture_for_inference
from fx_passes.errors import FxPassesError, NotEquivalentError, NothingGainedError, one_line
from fx_passes.find.find_kernels import judge_graph
from fx_passes.records import EXACTNESS, Exactness

_INPUT_HELP = "Sizes of an example input, as 1x3x224x224 or 4x16:int64; once for each input."
# How a shell, a scheduler or a closed terminal ends a command.
_SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
_JSON_HELP = "Write the result as JSON to FILE, or to standard output for -."


class _Ended(BaseException):
    """SIGTERM or SIGHUP, as an exception: what is unfinished is cleaned up on the way out."""


def _end(number: int, frame: Any) -> None:
    raise _Ended(number)


class _Group(click.Group):
    """Turns an error raised on purpose into one line and its exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        # A signal handler is for the main thread; elsewhere, whoever called us has handlers of its own.
        signals = _SIGNALS if threading.current_thread() is threading.main_thread() else ()
        before = {number: signal.signal(number, _end) for number in signals}
        try:
            return super().invoke(ctx)
        except _Ended as error:
            click.echo("fx-passes: ended by a signal; no model was written", err=True)
            ctx.exit(128 + error.args[0])
        except FxPassesError as error:
            click.echo(f"fx-passes: {error}", err=True)
            ctx.exit(error.exit_code)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except KeyboardInterrupt:
            click.echo("fx-passes: interrupted; no model was written", err=True)
            ctx.exit(130)
        except (Exception, SystemExit) as error:  # SystemExit is the model's, click has its own
            # Exit code 1 means "not equivalent": what nobody foresaw may not be taken for it.
            logging.getLogger(__name__).debug("unexpected", exc_info=True)
            said = f"unexpected {type(error).__name__}: {one_line(error)} (--verbose shows where)"
            click.echo(f"fx-passes: {said}", err=True)
            ctx.exit(3)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _writable(context: click.Context, parameter: click.Parameter, file: str | None) -> str | None:
    """Refuse a file that cannot be written before the work is done, not after."""
    if file and file != "-" and (Path(file).is_dir() or not Path(file).absolute().parent.is_dir()):
        raise click.BadParameter(f"cannot write {file}", context, parameter)
    return file


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="fx-passes")
@click.option("-v", "--verbose", is_flag=True, help="Log what the stages do to standard error.")
def main(verbose: bool) -> None:
    """Find convolutions whose groups repeat one kernel, keep it once, export verified ONNX.

    MODEL is path/to/file.py:attr, package.module:attr, or model.pt2. attr is an nn.Module, or a callable
    without arguments that returns a module or (module, example_inputs).
    """
    logging.basicConfig(level=logging.DEBUG if verbose else logging.ERROR, stream=sys.stderr)
    if not verbose:
        warnings.simplefilter("ignore")
        logging.getLogger("torch").setLevel(logging.CRITICAL)  # what torch raises is said once, by us


@main.command()
@click.argument("model")
@click.option("--input", "inputs", multiple=True, metavar="SIZES", help=_INPUT_HELP)
@click.option("--json", "json_file", metavar="FILE", help=_JSON_HELP, callback=_writable)
def find(model: str, inputs: tuple[str, ...], json_file: str | None) -> None:
    """List every convolution that shares a kernel, or the reason why it does not."""
    _require_apart({"--json": json_file}, [_file_of(model)])
    with progress() as show:
        show(f"loading {model}")
        loaded = load_model(model, inputs)
        show("capturing the graph")
        captured = capture_for_inference(loaded.model, loaded.example_inputs)
        show("finding kernels")
        findings = [verdict.finding for verdict in judge_graph(captured.graph_module, frozen=True)]
    if json_file:
        write_json(find_json(model, captured.route, findings), json_file)
    if json_file != "-":
        print_route(captured.route, captured.rejected)
        print_sites(findings)
        click.echo(f"{count_shared(findings)} of {len(findings)} candidate convolutions share a kernel")


@main.command()
@click.argument("model")
@click.option("-o", "--output", required=True, metavar="OUT.onnx", help="The file to write.")
@click.option("--input", "inputs", multiple=True, metavar="SIZES", help=_INPUT_HELP)
@click.option(
    "--lowering",
    type=click.Choice(LOWERINGS),
    default="tuned",
    show_default=True,
    help="tuned: what is fastest here; static: by rules, the same everywhere; expand: equal bit for bit.",
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
    callback=_writable,
    help="Save what was decided; an interrupted tuning goes on from it.",
)
@click.option(
    "--threads", type=click.IntRange(1), default=1, show_default=True, help="Threads when measuring."
)
@click.option(
    "--dynamic",
    multiple=True,
    metavar="SPEC",
    help="Open sizes: batch (dimension 0 of every input), or INPUT:DIM[,DIM] by name or number.",
)
@click.option(
    "--seconds", type=click.FloatRange(0), default=10, show_default=True, help="Measure at most; 0: not."
)
@click.option("--json", "json_file", metavar="FILE", help=_JSON_HELP, callback=_writable)
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
    threads: int,
    dynamic: tuple[str, ...],
    seconds: float,
    json_file: str | None,
    strict: bool,
) -> None:
    """Write an ONNX file with each shared kernel stored once and computed fast, verified and measured."""
    _require_apart(
        {"-o": output, "--json": json_file, "--save-plan": save_plan}, [_file_of(model), plan_file]
    )
    plan = read_plan(plan_file) if plan_file else None
    if save_plan == "-":
        raise click.BadParameter("a plan is saved to a file", param_hint="--save-plan")
    # Whatever is to be decided: a file that is no plan is not overwritten.
    timings = resume(Path(save_plan), threads) if save_plan else None
    with progress() as show:
        show(f"loading {model}")
        loaded = load_model(model, inputs)
        report = run_optimize(
            loaded.model,
            loaded.example_inputs,
            output,
            lowering=lowering,
            exactness=exactness,
            budget=budget,
            plan=plan,
            timings=timings,
            dynamic_shapes=dynamic_shapes(loaded.model, loaded.example_inputs, dynamic),
            threads=threads,
            seconds=seconds,
            name=model,
            progress=show,
        )
    if save_plan:
        write_plan(report.plan, Path(save_plan))
    if json_file:
        write_json(report.to_json(), json_file)
    if json_file != "-":
        print_route(report.route, report.rejected)
        print_sites(report.findings, report)
        for line in summary_lines(report):
            click.echo(line)
        click.echo(f"written: {report.output}")
    if strict and not report.rewritten:
        raise NothingGainedError("nothing was shared (--strict)")
    if strict and not (report.speed and report.speed.faster):
        raise NothingGainedError("nothing got measurably faster (--strict)")


@main.command()
@click.argument("baseline", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("optimised", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--json", "json_file", metavar="FILE", help=_JSON_HELP, callback=_writable)
def check(baseline: Path, optimised: Path, json_file: str | None) -> None:
    """Compare two ONNX files in onnxruntime on inputs made for the purpose."""
    _require_apart({"--json": json_file}, [baseline, optimised])
    with progress() as show:
        show("checking equivalence")
        result = check_equivalence(baseline, optimised, progress=lambda case: show(f"checking: {case}"))
    if json_file:
        files = {"baseline": str(baseline), "optimized": str(optimised)}
        write_json({"schema": CHECK_SCHEMA, **files, "equivalence": result.to_json()}, json_file)
    if json_file != "-":
        for output in result.outputs:
            click.echo(
                f"{output.name}: largest difference {output.max_abs_error:.3g}, allowed {output.bound:.3g}"
            )
        bits = "equal bits" if result.bitwise else "within bounds"
        if result.passed:
            click.echo(f"equivalent: {bits} in {result.cases} cases ({result.reference})")
    if not result.passed:
        raise NotEquivalentError(f"not equivalent: {result.mismatch}")


def _file_of(model: str) -> Path:
    """The file that MODEL names."""
    if model.endswith(".pt2"):
        return Path(model)
    where = model.rpartition(":")[0]
    return Path(where if where.endswith(".py") else where.replace(".", "/") + ".py")


def _require_apart(results: dict[str, str | None], inputs: Sequence[Path | None]) -> None:
    """Refuse to write two results to one file, or a result over what is read."""
    taken = {file.resolve(): "what is read" for file in inputs if file}
    for option, file in results.items():
        if file and file != "-":
            if other := taken.get(Path(file).resolve()):
                raise click.BadParameter(f"{file} would overwrite {other}", param_hint=option)
            taken[Path(file).resolve()] = f"what {option} writes"
