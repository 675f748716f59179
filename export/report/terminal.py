"""Output of the command line: tables, JSON, progress."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape

from export.report.result import Report
from export.report.text import site_table, summary_lines
from export.verify.equivalence import Equivalence


def print_route(route: str, rejected: str | None = None) -> None:
    """How the graph was captured, and why the route before failed."""
    got = "read from the ONNX file" if route == "onnx" else f"captured by {route}"
    click.echo(got + (f" ({rejected})" if rejected else ""))


def print_sites(findings: Any, report: Report | None = None) -> None:
    """The table of sites. After an optimization it also says what became of them."""
    if not findings:
        click.echo("no convolution in groups")
        return
    console, table = Console(), site_table(findings, report)
    if console.is_terminal:
        console.print(table)
        return
    # A table of 80 columns would cut the reasons. If this is no terminal, lines are as long as necessary.
    wide = Console(width=10_000)
    with wide.capture() as text:
        wide.print(table)
    click.echo("\n".join(line.rstrip() for line in text.get().splitlines()))


def print_report(report: Report) -> None:
    """What an optimization found, did and measured, and where the file is."""
    print_route(report.route)
    print_sites(report.findings, report)
    for line in summary_lines(report):
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
    """Write ``data`` to ``file``, or to standard output for ``-``."""
    text = json.dumps(_finite(data), indent=2, allow_nan=False)
    if file == "-":
        click.echo(text)
        return
    try:
        Path(file).write_text(text + "\n")
    except OSError as error:
        raise click.BadParameter(f"cannot write {file}: {error.strerror}", param_hint="--json") from error


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """A spinner with the current stage on a terminal; else one line for each stage, on standard error."""
    console = Console(stderr=True)
    # What the model prints while it is loaded or run is not our output.
    with redirect_stdout(sys.stderr):
        if not console.is_terminal:
            yield lambda stage: click.echo(f"{stage} ...", err=True)
            return
        with console.status("starting") as status:
            yield lambda stage: status.update(escape(f"{stage} ..."))
