"""Output of the command line: tables and JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from export.report.result import Report
from export.report.site_lines import print_sites
from export.report.text import stage_lines, summary_lines
from export.report.whole_file import write_whole
from export.verify.equivalence import Equivalence
from fx_passes.records import Finding


def print_route(route: str, rejected: str | None = None) -> None:
    """How the graph was captured, and why the route before failed."""
    got = "read from the ONNX file" if route == "onnx" else f"captured by {route}"
    click.echo(got + (f" ({rejected})" if rejected else ""))


def print_findings(findings: Sequence[Finding], report: Report | None = None, *, every: bool = False) -> None:
    """The sites. After an optimization this also says what became of them."""
    if not findings:
        click.echo("no convolution in groups")
        return
    console = Console()
    if console.file.isatty():
        print_sites(console, findings, report, every=every)
        return
    # If this is no terminal, lines are as long as necessary.
    wide = Console(width=10_000, color_system=None)
    with wide.capture() as text:
        print_sites(wide, findings, report, every=every)
    click.echo("\n".join(line.rstrip() for line in text.get().splitlines()))


def print_report(report: Report, *, every: bool = False, stages: bool = False) -> None:
    """What an optimization found, did and measured, and where the file is. ``stages``: and how long each
    stage took."""
    print_route(report.route)
    print_findings(report.findings, report, every=every)
    for line in [*summary_lines(report), *(stage_lines(report) if stages else ())]:
        click.echo(line)
    click.echo(f"written: {report.output}")


def print_equivalence(result: Equivalence) -> None:
    """What a comparison of two files found: a line for each output, and the verdict."""
    for output in result.outputs:
        click.echo(
            f"{output.name}: largest difference {output.max_abs_error:.3g}, allowed {output.bound:.3g}"
        )
    if result.passed:
        bits = "equal bits" if result.bitwise else "within bounds"
        click.echo(f"equivalent: {bits} in {result.cases} cases ({result.reference})")


def _finite(value: Any) -> Any:
    """null for NaN and infinity, which JSON does not have."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(data: dict[str, Any], file: str) -> None:
    """Write ``data`` to ``file``, or to standard output for ``-``.

    Raises:
        ExportError: the file cannot be written.
    """
    text = json.dumps(_finite(data), indent=2, allow_nan=False)
    if file == "-":
        click.echo(text)
    else:
        write_whole(Path(file), text + "\n")
