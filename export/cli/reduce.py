"""``fx-passes reduce``: the smallest piece of a model that still fails, for a bug report."""

from __future__ import annotations

from pathlib import Path

import click

from export.cli.decide import dynamic_option, exactness_option, lowering_option, plan_option
from export.cli.files import file_of, require_apart, writable
from export.cli.group import input_option, main, model_argument
from export.cli.help import examples
from export.cli.loudness import loudness_options, printing, showing
from export.cli.reduced import Asked, plan_beside, reduced
from export.read_onnx.model import read_model
from export.tune.plan_file import read_plan
from export.write_onnx.file import folder_beside
from export.write_onnx.written_file import weight_files


@main.command(
    short_help="Find the smallest piece that still fails.",
    epilog=examples(
        "fx-passes reduce my_model.py:build -o small.onnx",
        "fx-passes reduce model.onnx -o small.onnx --lowering static",
    ),
)
@model_argument
@click.option(
    "-o",
    "--output",
    required=True,
    metavar="SMALL.onnx",
    callback=writable,
    help="The file to write; with --plan also SMALL.plan.json, which has what the plan says of this piece.",
)
@input_option
@dynamic_option
@lowering_option
@exactness_option
@plan_option
@click.option(
    "--budget",
    type=click.FloatRange(1),
    default=10,
    show_default=True,
    help="Seconds of timing in each try, with --lowering tuned.",
)
@click.option(
    "--limit",
    type=click.FloatRange(1),
    default=600,
    show_default=True,
    help="Seconds that one try may take.",
)
@loudness_options
def reduce(
    model: str,
    output: str,
    inputs: tuple[str, ...],
    dynamic: tuple[str, ...],
    lowering: str,
    exactness: str,
    plan_file: Path | None,
    budget: float,
    limit: float,
) -> None:
    """Find the smallest piece of a model with which optimize still fails: it differs, raises or crashes."""
    _require_apart(model, Path(output), plan_file)
    decide = ["--exactness", exactness, "--seconds", "0"]
    if plan_file is None:
        decide += ["--lowering", lowering, *(["--budget", f"{budget:g}"] if lowering == "tuned" else [])]
    plan = read_plan(plan_file) if plan_file else None
    asked = Asked(model, inputs, dynamic, decide, plan, limit)
    with showing([]) as show, folder_beside(Path(output)) as folder:
        found = reduced(asked, plan_file, Path(output), folder, show)
    if not printing():
        return
    if found is None:
        click.echo("nothing fails: optimize writes a verified file, so there is nothing to reduce")
        return
    count = f"{len(found.operators)} of {found.of} nodes"
    click.echo(f"it fails: {found.said}")
    click.echo(f"smallest piece that does: {count} ({', '.join(found.operators)})")
    if found.needs:
        click.echo(f"it fails only after the code of {found.needs} was imported: send this code, too")
    if found.unknown:
        click.echo(f"it may not be the smallest: {found.unknown}")
    click.echo(f"shown by: {found.command}")
    for file in found.written:
        click.echo(f"written: {file}")


def _require_apart(model: str, output: Path, plan_file: Path | None) -> None:
    """Refuse a result over what is read: the model, its weights, or the plan."""
    results = {"-o": str(output), "the weights of -o": f"{output}.data"}
    if plan_file:
        results["the plan of -o"] = str(plan_beside(output))
    read = file_of(model)
    weights = weight_files(read_model(read)) if read.suffix == ".onnx" else []
    require_apart(results, [read, plan_file, *(read.parent / location for location in weights)])
