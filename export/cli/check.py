"""``fx-passes check``: compares two files."""

from __future__ import annotations

from pathlib import Path

import click

from export.cli.files import require_apart
from export.cli.group import json_option, main
from export.cli.help import examples
from export.cli.loudness import loudness_options, printing, showing
from export.job.expected import CHECKING
from export.report.result import CHECK_SCHEMA
from export.report.terminal import print_equivalence, write_json
from export.runtime.target import parse_target
from export.stages import Stages
from export.verify.equivalence import check_equivalence
from fx_passes.errors import NotEquivalentError


@main.command(
    short_help="Compare two ONNX files.",
    epilog=examples(
        "fx-passes check a.onnx b.onnx", "fx-passes check a.onnx b.onnx --target openvino --json -"
    ),
)
@click.argument("baseline", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("optimized", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--target", default="onnxruntime", show_default=True, help="Another runtime to compare in.")
@json_option
@loudness_options
def check(baseline: Path, optimized: Path, target: str, json_file: str | None) -> None:
    """Compare two ONNX files in onnxruntime, and in another runtime, on inputs made for the purpose."""
    require_apart({"--json": json_file}, [baseline, optimized])
    where = parse_target(target)
    with showing([CHECKING]) as show:
        show("checking equivalence")
        step = Stages(show).step
        result = check_equivalence(
            baseline, optimized, target=where, progress=lambda case: step(f"checking: {case}")
        )
    if json_file:
        files = {"baseline": str(baseline), "optimized": str(optimized)}
        write_json({"schema": CHECK_SCHEMA, **files, "equivalence": result.to_json()}, json_file)
    if printing(json_file):
        print_equivalence(result)
    if not result.passed:
        raise NotEquivalentError(f"not equivalent: {result.mismatch}")
