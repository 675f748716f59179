"""No command writes a file over another one that it reads or writes."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import run

from fx_passes.plan import Plan

# In each command, one file is written where another file is written or read.
OVERWRITES = {
    "the report over the model": "optimize models.py:shared -o x.onnx --json x.onnx",
    "by another name": "optimize models.py:shared -o x.onnx --json sub/../x.onnx",
    "the plan over the report": "optimize models.py:shared -o x.onnx --json x.json --save-plan x.json",
    "the page over the model": "optimize models.py:shared -o x.onnx --report x.onnx",
    "the page over the notes": "optimize models.py:shared -o x.onnx --report x.html --markdown x.html",
    "the page over the plan": "optimize models.py:shared -o x.onnx --plan plan.json --report plan.json",
    "the report over the plan": "optimize models.py:shared -o x.onnx --plan plan.json --json plan.json",
    "the report over the source": "find models.py:shared --json models.py",
    "the model over the source": "optimize models.py:shared -o models.py",
    "the model over the source of a package": "optimize package.models:shared -o package/models.py",
    "the plan of a piece over the plan": "reduce models.py:shared -o a.onnx --plan a.plan.json",
    "the report over a file that is checked": "check a.onnx b.onnx --json b.onnx",
}


@pytest.mark.parametrize("name", OVERWRITES)
def test_nothing_is_written_over_something_else(
    name: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command refuses before it does any work.

    The exit code is 2, and every file is what it was.
    """
    monkeypatch.chdir(tmp_path)
    Path("sub").mkdir()
    Path("package").mkdir()
    for file in ("a.onnx", "b.onnx"):
        Path(file).touch()
    for file in ("plan.json", "a.plan.json"):
        Path(file).write_text(Plan({}).to_json())
    before = {file: file.read_text() for file in Path().iterdir() if file.is_file()}
    result = run(*OVERWRITES[name].split())
    assert result.exit_code == 2
    assert " would overwrite what " in result.stderr.splitlines()[-1]
    assert {file: file.read_text() for file in Path().iterdir() if file.is_file()} == before
