"""What ``optimize`` writes about its work besides the model: ``--json``, ``--report``, ``--markdown``."""

from __future__ import annotations

import functools
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from export.cli.files import writable
from export.cli.group import json_option, sites_option
from export.cli.loudness import printing, telling
from export.report.html import write_html
from export.report.markdown import markdown_of, write_markdown
from export.report.result import Report
from export.report.terminal import print_report, write_json

_ARGUMENTS = "fx_passes.arguments"


class Remembers(click.Command):
    """A command that knows the arguments it was given, so that a report can name them."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[_ARGUMENTS] = tuple(args)
        return super().parse_args(ctx, args)


@dataclass(frozen=True)
class Results:
    """The files that are asked for; ``-`` is standard output. ``every``: the terminal lists every site.

    Raises:
        click.BadParameter: two of them go to standard output, or a page does.
    """

    json_file: str | None
    page: str | None
    markdown: str | None
    every: bool = False

    def __post_init__(self) -> None:
        if self.page == "-":
            raise click.BadParameter("a page is written to a file", param_hint="--report")
        if self.json_file == "-" == self.markdown:
            raise click.BadParameter("--json has standard output already", param_hint="--markdown")

    @property
    def files(self) -> dict[str, str | None]:
        """By option."""
        return {"--json": self.json_file, "--report": self.page, "--markdown": self.markdown}

    def write(self, report: Report) -> None:
        """Write them all. Where none of them goes to standard output, the report for the terminal does."""
        context = click.get_current_context()
        command = shlex.join(["fx-passes", str(context.info_name), *context.meta[_ARGUMENTS]])
        if self.json_file:
            write_json(report.to_json(), self.json_file)
        if self.markdown == "-":
            click.echo(markdown_of(report, command=command), nl=False)
        elif self.markdown:
            write_markdown(report, Path(self.markdown), command=command)
        if self.page:
            write_html(report, Path(self.page), command=command)
        if "-" not in (self.json_file, self.markdown) and printing():
            print_report(report, every=self.every, stages=telling())


def results_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of :class:`Results`. The command gets them as its argument ``results``."""

    @functools.wraps(command)
    def with_results(
        *, json_file: str | None, page: str | None, markdown: str | None, every: bool, **others: Any
    ) -> Any:
        return command(results=Results(json_file, page, markdown, every), **others)

    page = click.option(
        "--report",
        "page",
        metavar="FILE.html",
        help="Write a page for people to FILE.html: timings, every site with its kernel, operators, sizes.",
        callback=writable,
    )
    markdown = click.option(
        "--markdown",
        metavar="FILE",
        help="Write the result in short for a pull request to FILE, or to standard output for -.",
        callback=writable,
    )
    return sites_option(json_option(page(markdown(with_results))))
