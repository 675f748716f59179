"""The report for a pull request."""

from __future__ import annotations

import re

import made_reports as made

from export.report.markdown import NAMED, markdown_of
from fx_passes.plan import Choice, Plan


def cells(line: str) -> list[str]:
    """The cells of a row, as Markdown splits it: at pipes that no backslash escapes."""
    return re.split(r"(?<!\\)\|", line)[1:-1]


def test_a_pipe_ends_no_cell() -> None:
    """Names and reasons with pipes, backticks, line breaks and tags leave the table as it is."""
    evil = "a|b`c`\nd <script> \\| [x](y)"
    found = made.report([made.finding(evil)], [made.finding("r", reason=evil)], model=evil)
    text = markdown_of(found, command=evil)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + 2
    assert {len(cells(row)) for row in rows} == {5}
    assert "<script" not in text
    assert not re.search(r"(?<!\\)\[x", text.replace("&#91;", ""))


def test_it_says_what_the_page_says() -> None:
    """The verdict first, then speed, size, every kind with its reason, and the command."""
    found = made.report(
        [made.finding("a")], [made.finding("r", reason="group 1 differs")], speed=made.timing(2.5)
    )
    text = markdown_of(found, command="fx-passes optimize x -o y")
    assert text.startswith("**Equivalent to the original: within bounds in 7 cases (float64); 2.5x faster")
    assert "4.0 KiB → 2.0 KiB" in text
    assert "| 1: `a` | conv2d, 5x5 taps | 4x1x5x5 → 1x1x5x5 | separable (rounds differently) |  |" in text
    assert "| not shared | group 1 differs |" in text
    assert text.index("<details>") < text.index("`fx-passes optimize x -o y`") < text.index("</details>")


def test_many_sites_are_one_row() -> None:
    """Alike sites are counted; only the first few are named."""
    sites = [made.finding(f"s{i}") for i in range(200)]
    plan = Plan({one.id: Choice("same", made.WAY) for one in sites})
    text = markdown_of(made.report(sites, plan=plan))
    assert f"| 200: `s0`, `s1`, `s2` and {200 - NAMED} more |" in text
    assert len(text) < 2000
