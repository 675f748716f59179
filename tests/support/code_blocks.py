"""The code blocks of README and of the pages, and what they mean to the tests."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
# The page on lowerings has a test of its own, which runs its files in a copy of the package.
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
RUN_HERE = [page for page in PAGES if page.name != "add-a-lowering.md"]
_FENCE = re.compile(r"^```(\w*)(?: title=\"(.+?)\")?\n(.*?)^```$", re.M | re.S)


@dataclass(frozen=True)
class Block:
    """One block: its language, the file that it is, if it is one, and its text."""

    language: str
    title: str | None
    text: str


def blocks_of(markdown: str) -> list[Block]:
    """The blocks in their order."""
    return [Block(*found.groups()) for found in _FENCE.finditer(markdown)]  # type: ignore[arg-type]


def commands_of(block: Block) -> list[str]:
    """The commands of a block of the shell, without comments and without the folder of the environment."""
    lines = [line.partition("  #")[0].strip() for line in block.text.splitlines()]
    each = [part.strip() for line in lines for part in line.split("&&")]
    return [command.removeprefix(".venv/bin/") for command in each if command]


def form(output: str) -> list[str]:
    """What is the same in every run: words and columns without numbers.

    What is chosen depends on the machine: the last column of a table, how exact and how fast the file is, and
    the stages of a tuning.
    """
    lines = []
    for line in output.splitlines():
        if re.match(r"\s+[\d.]+ s \w", line):
            continue
        said = re.sub(r"\d[\d.]*", "#", line.strip())
        if measured := re.match(r"equivalence: passed|speed: # ms -> # ms", said):
            said = measured[0]
        columns = re.split(r"\s{2,}", said)
        lines.append("  ".join(columns[:-1] if len(columns) > 2 else columns))
    return lines
