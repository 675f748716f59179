"""The report as one HTML file for people: nothing is loaded, nothing leaves the page.

Every text of a model (names, reasons) is escaped by jinja2. The page forbids itself all scripts but its own,
and all addresses.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import resources
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from export.report.details import Details
from export.report.kinds import STATUS, Kind, kinds_of
from export.report.pictures import HEIGHT, WIDTH, Heat, Pictures, pictures_of
from export.report.plots import largest_first, pairs_of, plot_of
from export.report.result import Report
from export.report.text import EXACTNESS_TEXT, notes_of, setting_text, speed_text
from export.report.verdict import bytes_text, equivalence_words, headline, size_words, speed_words, tone
from export.report.whole_file import write_whole
from export.runtime.arrays import shape_text
from fx_passes.records import Finding

# So many kinds are open when the page opens.
OPEN = 3
COLUMNS = (
    ("kind", "number"),
    ("site", "text"),
    ("operator", "text"),
    ("groups", "number"),
    ("weight → kernel", "text"),
    ("result or reason", "text"),
    ("exactness", "text"),
    ("error / bound", "number"),
)
SECTIONS = (("speed", "Speed"), ("kinds", "Kinds of sites"))
DETAILS = (("operators", "Time by operator"), ("bytes", "Bytes by initializer"))
LAST = (("equivalence", "Equivalence"), ("environment", "Environment"))


def write_html(report: Report, path: Path | str, *, command: str | None = None) -> None:
    """Write a report as one HTML file, completely or not at all.

    Args:
        report: from ``export.optimize(..., details=True)``. Without details there are no pictures, no nodes,
            no operators and no initializers.
        path: the file. An existing one is replaced.
        command: the command line that makes the optimized file again.

    Raises:
        ExportError: the file cannot be written.
    """
    write_whole(Path(path), html_of(report, command=command))


def html_of(report: Report, *, command: str | None = None) -> str:
    """The page as text."""
    style, script = (Markup(_own(name)) for name in ("style.css", "script.js"))
    shown = list(_numbered(kinds_of(report)))
    return (
        _pages()
        .get_template("report.html")
        .render(
            report=report,
            details=report.details,
            command=command,
            style=style,
            script=script,
            policy=_policy(script),
            headline=headline(report),
            tone=tone(report),
            size=size_words(report),
            speed=speed_words(report),
            equivalence=equivalence_words(report.equivalence),
            notes=[*notes_of(report), *report.equivalence.notes],
            plots=_plots(report),
            kinds=shown,
            rows=_rows(report, shown),
            columns=COLUMNS,
            statuses={
                status: words for status, words in STATUS.items() if any(k.status == status for k in shown)
            },
            sections=_sections(report),
            **_of_details(report.details),
        )
    )


@dataclass(frozen=True)
class _Shown:
    """A kind on the page, with its number and its pictures."""

    kind: Kind
    number: int
    open: bool
    pictures: Pictures | None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.kind, name)

    @property
    def heat(self) -> bool:
        """Whether colours need words."""
        return self.pictures is not None and isinstance(self.pictures.kernels[0], Heat)


@dataclass(frozen=True)
class _Row:
    """A site in the table. ``share``: its error as a share of the bound."""

    finding: Finding
    kind: _Shown
    together: str
    share: str


def _numbered(kinds: Iterable[Kind]) -> Iterator[_Shown]:
    for number, kind in enumerate(kinds, 1):
        kernel = kind.detail.kernel
        yield _Shown(kind, number, number <= OPEN, None if kernel is None else pictures_of(kernel))


def _rows(report: Report, kinds: Iterable[_Shown]) -> list[_Row]:
    by_id = {finding.id: kind for kind in kinds for finding in kind.kind.findings}
    rows = []
    for finding in report.findings:
        kind, error = by_id[finding.id], by_id[finding.id].kind.detail.error
        share = f"{error.error / error.allowed:.6g}" if error and error.allowed else "0" if error else ""
        rows.append(_Row(finding, kind, ", ".join(report.together_with(finding)), share))
    return rows


def _plots(report: Report) -> list[tuple[str, str, Any]]:
    timed = report.speed_at or (((), report.speed),) if report.speed else ()
    several = len(timed) > 1
    return [
        (setting_text(shapes, timing) if several else "", speed_text(timing), plot_of(timing))
        for shapes, timing in timed
    ]


def _sections(report: Report) -> list[tuple[str, str]]:
    table = (("sites", "All sites"),) if report.findings else ()
    return [*SECTIONS, *table, *(DETAILS if report.details else ()), *LAST]


def _of_details(details: Details | None) -> dict[str, Any]:
    if details is None:
        return {}
    files = (("before", details.before), ("after", details.after))
    return {
        "operators": pairs_of(details.operators.before, details.operators.after),
        "initializers": [
            (title, largest_first(sizes), bytes_text(sum(sizes.values()))) for title, sizes in files
        ],
    }


def _own(name: str) -> str:
    return (resources.files("export.report") / "page" / name).read_text(encoding="utf-8")


def _policy(script: str) -> str:
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{digest}'"


def _breakable(name: str) -> Markup:
    """A name that may go on in the next line behind a dot or a slash."""
    return Markup("<wbr>").join(re.split(r"(?<=[./])", name))


def _pages() -> Environment:
    pages = Environment(
        loader=PackageLoader("export.report", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.globals.update(width=WIDTH, height=HEIGHT)
    pages.filters.update(
        breakable=_breakable,
        capitalize_first=lambda text: text[:1].upper() + text[1:],
        exactness=lambda name: EXACTNESS_TEXT[name] if name else "as it was",
        runs=lambda names: [(name, len(list(same))) for name, same in groupby(names)],
        shape=shape_text,
    )
    return pages
