"""The report in short, as Markdown for a pull request."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from pathlib import Path

from export.report.kinds import Kind, kinds_of
from export.report.result import Report
from export.report.text import EXACTNESS_TEXT, notes_of, setting_text, speed_text
from export.report.verdict import headline, size_words
from export.report.whole_file import write_whole
from export.speed import Timing

# Ids of sites that a row names; the others are counted.
NAMED = 3
# What Markdown or HTML would take as its own, wherever it stands; and what only beside a space is a mark.
_MARKS = re.compile(r"([\\`*\[\]~|#$]|(?<![^\W_])_|_(?![^\W_]))")


def write_markdown(report: Report, path: Path | str, *, command: str | None = None) -> None:
    """Write a report in short as Markdown, completely or not at all.

    Args:
        report: from ``export.optimize``.
        path: the file. An existing one is replaced.
        command: the command line that makes the optimized file again.

    Raises:
        ExportError: the file cannot be written.
    """
    write_whole(Path(path), markdown_of(report, command=command))


def markdown_of(report: Report, *, command: str | None = None) -> str:
    """The report in short as text."""
    lines = [
        f"**{plain(headline(report))}**",
        "",
        f"Model: {code(report.model)}. Size: {size_words(report)}.",
    ]
    notes = [*notes_of(report), *report.equivalence.notes]
    lines += ["", *(f"- {plain(note)}" for note in notes)] if notes else []
    timed = report.speed_at or (((), report.speed),) if report.speed else ()
    lines += ["", *(f"- Speed of {plain(_setting(*one))}: {plain(speed_text(one[1]))}" for one in timed)]
    kinds = kinds_of(report)
    if kinds:
        lines += ["", "| sites | operator | weight → kernel | result | why |", "|---|---|---|---|---|"]
        lines += [_row(kind) for kind in kinds]
    return "\n".join([*lines, "", *_environment(report, command)]) + "\n"


def plain(text: str) -> str:
    """``text`` as Markdown shows it: nothing in it is a mark, a tag, or the end of a cell.

    Example:
        >>> plain("a|b <i> conv_1d")
        'a\\\\|b &lt;i&gt; conv_1d'
    """
    return _MARKS.sub(r"\\\1", html.escape(" ".join(str(text).split()), quote=False))


def code(name: str) -> str:
    """A name in the letters of code, where GitHub also links nothing.

    Example:
        >>> code("conv_1"), code("a|`b`")
        ('`conv_1`', '<code>a&#124;&#96;b&#96;</code>')
    """
    name = " ".join(str(name).split())
    if not {"|", "`"} & set(name):
        return f"`{name}`"
    text = html.escape(name, quote=False)
    return f"<code>{''.join(c if c.isalnum() or c in '&;' else f'&#{ord(c)};' for c in text)}</code>"


def _setting(shapes: Sequence[Sequence[int]], timing: Timing) -> str:
    return setting_text(shapes, timing) if shapes else "both files"


def _row(kind: Kind) -> str:
    names = ", ".join(code(finding.id) for finding in kind.findings[:NAMED])
    more = len(kind.findings) - NAMED
    sites = f"{len(kind.findings)}: {names}{f' and {more} more' if more > 0 else ''}"
    exact = f" ({EXACTNESS_TEXT[kind.exactness]})" if kind.exactness else ""
    cells = (kind.title, kind.weight, kind.what + exact, "; ".join(kind.reasons))
    return f"| {' | '.join([sites, *map(plain, cells)])} |"


def _environment(report: Report, command: str | None) -> list[str]:
    """What made it, folded."""
    lines = [f"- {plain(name)}: {plain(value)}" for name, value in report.environment.items()]
    lines = [f"- made again by {code(command)}", *lines] if command else lines
    return ["<details><summary>Environment</summary>", "", *lines, "", "</details>"]
