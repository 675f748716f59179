"""``fx-passes explain``: why a site is rewritten or not, and what each lowering would do and cost."""

from __future__ import annotations

import shutil
import sys
import tempfile
import textwrap
from collections.abc import Sequence
from pathlib import Path

import click

from export.cli.decide import dynamic_option
from export.cli.files import file_of, require_apart
from export.cli.find import found_in
from export.cli.group import input_option, json_option, main, model_argument
from export.cli.help import examples
from export.cli.inputs import file_inputs
from export.cli.loudness import loudness_options, printing, showing
from export.job.expected import EXPORTING, FINDING, LOADING, TIMING
from export.job.explain import explain_site
from export.job.original import load_original
from export.job.source import Source, export_original, open_file
from export.read_onnx.model import read_model
from export.report.explanation import Explanation, sentences
from export.report.terminal import write_json
from export.stages import Stages
from fx_passes.lowerings import MODULES
from fx_passes.records import Finding


@main.command(
    short_help="Say why a site is rewritten or not, at what cost.",
    epilog=examples(
        "fx-passes explain my_model.py:build blur/conv2d",
        "fx-passes explain model.onnx /blur/Conv --lowering separable",
        "fx-passes explain my_model.py:build blur/conv2d --time --json -",
    ),
)
@model_argument
@click.argument("site")
@input_option
@dynamic_option
@click.option(
    "--lowering",
    "lowerings",
    multiple=True,
    type=click.Choice(list(MODULES)),
    metavar="NAME",
    help="Explain this lowering alone; once for each. The others are left out.",
)
@click.option("--time", "timed", is_flag=True, help="Time what can be done here, for the site by itself.")
@json_option
@loudness_options
def explain(
    model: str,
    site: str,
    inputs: tuple[str, ...],
    dynamic: tuple[str, ...],
    lowerings: tuple[str, ...],
    timed: bool,
    json_file: str | None,
) -> None:
    """Say why SITE is rewritten or not, what each lowering would do, and what it would cost.

    SITE is an id that find prints, with --sites each of them.
    """
    require_apart({"--json": json_file}, [file_of(model)])
    expected = [LOADING, *EXPORTING, FINDING, *([TIMING] if timed else [])]
    with tempfile.TemporaryDirectory() as folder, showing(expected) as show:
        stages = Stages(show)
        source = _source(model, inputs, dynamic, Path(folder), stages)
        stages.progress("timing the candidates" if timed else "explaining")

        def also() -> Sequence[Finding]:
            return () if model.endswith(".onnx") else found_in(model, inputs, lambda stage: None)[2]

        explained = explain_site(source, site, model, lowerings=lowerings, timed=timed, also=also)
    if json_file:
        write_json(explained.to_json(), json_file)
    if printing(json_file):
        _print(explained)


def _source(
    model: str, inputs: tuple[str, ...], dynamic: Sequence[str], folder: Path, stages: Stages
) -> Source:
    """The file in which ``optimize`` would look."""
    stages.progress(f"loading {model}")
    if model.endswith(".onnx"):
        example = file_inputs(inputs, dynamic)
        return open_file(read_model(Path(model)), example, folder, stages)
    made = load_original(model, inputs, dynamic)
    return export_original(made.model, made.inputs, made.dynamic_shapes, folder, "model.onnx", stages)


def _print(explained: Explanation) -> None:
    """Paragraphs. On a terminal they are broken to its width."""
    terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if terminal else 10_000
    for depth, text in sentences(explained):
        indent = "  " * depth
        lines = textwrap.wrap(
            text, width, initial_indent=indent, subsequent_indent=indent + "  ", break_on_hyphens=False
        )
        click.echo("\n".join(lines))
