"""Files hold one idea, and functions fit on a screen."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = [
    file
    for folder in ("fx_passes", "export", "benchmarks", "examples", "tests", "docs")
    for file in (ROOT / folder).rglob("*.py")
]
LINES_OF_FILE, LINES_OF_FUNCTION = 250, 40


def too_long(text: str) -> Iterator[str]:
    """The functions that are longer than allowed. Docstrings do not count."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            said = node.body[0] if ast.get_docstring(node) else None
            documented = said.end_lineno - said.lineno + 1 if said and said.end_lineno else 0
            if (node.end_lineno or 0) - node.lineno + 1 - documented > LINES_OF_FUNCTION:
                yield node.name


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_sizes(file: Path) -> None:
    """No file has more than 250 lines, and no function more than 40."""
    text = file.read_text()
    assert text.count("\n") <= LINES_OF_FILE
    assert list(too_long(text)) == []


def test_a_long_function_is_found() -> None:
    """Negative control: 41 lines of code; a docstring does not count."""
    body = "".join(f"    x = {number}\n" for number in range(39))
    assert list(too_long(f'def f():\n    """Two\n\n    lines."""\n{body}')) == []
    assert list(too_long(f"def f():\n{body}    return x\n")) == ["f"]
