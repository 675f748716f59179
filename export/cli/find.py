"""``fx-passes find``: every convolution that shares a kernel, or why it does not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from export.cli.files import file_of, require_apart
from export.cli.group import input_option, json_option, main, model_argument, sites_option
from export.cli.help import examples
from export.cli.loudness import loudness_options, printing, showing
from export.job.expected import CAPTURING, FINDING, LOADING
from export.loading import load_model
from export.read_onnx.model import read_model
from export.read_onnx.sites import analyse
from export.report.result import count_shared, find_json
from export.report.terminal import print_findings, print_route, write_json
from export.report.text import MAY_BE_FASTER
from export.stages import Progress
from fx_passes.capture.inference import capture_for_inference
from fx_passes.find.find_kernels import judge_graph
from fx_passes.records import Finding


@main.command(
    short_help="List what shares a kernel, and why the rest does not.",
    epilog=examples(
        "fx-passes find my_model.py:build",
        "fx-passes find my_model.py:build --input 1x3x224x224 --sites",
        "fx-passes find model.onnx --json -",
    ),
)
@model_argument
@input_option
@sites_option
@json_option
@loudness_options
def find(model: str, inputs: tuple[str, ...], every: bool, json_file: str | None) -> None:
    """List every convolution that shares a kernel, or the reason why it does not."""
    require_apart({"--json": json_file}, [file_of(model)])
    with showing([LOADING, CAPTURING, FINDING]) as show:
        show(f"loading {model}")
        route, rejected, findings = found_in(model, inputs, show)
    if json_file:
        write_json(find_json(model, route, findings), json_file)
    if printing(json_file):
        print_route(route, rejected)
        print_findings(findings, every=every)
        click.echo(summary(findings))


def summary(findings: Sequence[Finding]) -> str:
    """How many convolutions share a kernel, and how many have one kernel already."""
    single = sum(finding.shared and finding.groups == 1 for finding in findings)
    more = f"; {single} with one kernel already: {MAY_BE_FASTER}" if single else ""
    return f"{count_shared(findings)} of {len(findings)} candidate convolutions share a kernel{more}"


def found_in(
    model: str, inputs: tuple[str, ...], show: Progress
) -> tuple[str, str | None, Sequence[Finding]]:
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
