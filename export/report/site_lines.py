"""The sites as lines of a given width: a table, or paragraphs where a table would be too narrow to read."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from export.report.alike import Alike, alike
from export.report.result import Report
from fx_passes.records import Finding

# Columns that the last column of a table needs, as it has sentences.
_FEWEST = 24


def print_sites(
    console: Console, findings: Sequence[Finding], report: Report | None = None, *, every: bool = False
) -> None:
    """Print what was found, and after an optimization what became of it. Nothing is cut at any width.

    Args:
        console: where to. Its width is that of the lines.
        every: each site is listed. Otherwise those that are alike are one.
    """
    rows = alike(findings, report, every=every)
    table = _table(rows, "lowering or reason" if report else "verdict", every)
    last = table.columns.pop()
    others = console.measure(table).maximum
    table.columns.append(last)
    if others + _FEWEST <= console.width:
        console.print(table)
        return
    for row in rows:
        for line in paragraph(row, console.width, every):
            console.print(line, markup=False, highlight=False, soft_wrap=True)


def _table(rows: Sequence[Alike], last: str, every: bool) -> Table:
    table = Table(box=None, pad_edge=False)
    if not every:
        table.add_column("sites", justify="right", no_wrap=True)
    for title in ("op", "groups", "weight -> kernel", "site" if every else "first site"):
        table.add_column(title, justify="right" if title == "groups" else "left", no_wrap=True)
    table.add_column(last, overflow="fold")
    for row in rows:
        count = [] if every else [f"{len(row.findings)} x"]
        table.add_row(*map(Text, (*count, row.what, row.groups, row.weight, row.example.id, row.verdict)))
    return table


def paragraph(row: Alike, width: int, every: bool) -> list[str]:
    """A row of the table as lines: what it is, what became of it, which site is the first."""
    what = row.what if every else f"{len(row.findings)} x {row.what}"
    groups = f"{row.groups} group{'' if row.groups == '1' else 's'}"
    where = f"site: {row.example.id}" if every else f"first site: {row.example.id}"
    lines = _wrapped(f"{what}, {groups}, {row.weight}", width, "")
    for text in (row.verdict, where):
        lines += _wrapped(text, width, "    ")
    return lines


def _wrapped(text: str, width: int, indent: str) -> list[str]:
    return textwrap.wrap(text, width, initial_indent=indent, subsequent_indent="    ", break_on_hyphens=False)
