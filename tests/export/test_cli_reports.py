"""--report and --markdown on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import run

QUICK = ("--lowering", "expand", "--seconds", "0")


def test_both_files_are_written(source: Path, tmp_path: Path) -> None:
    """They name the model, the site, the file, and the command with its arguments quoted."""
    page, notes, out = (tmp_path / name for name in ("r 1.html", "r.md", "o.onnx"))
    arguments = ["optimize", f"{source}:shared", "-o", out, *QUICK, "--report", page, "--markdown", notes]
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    assert "written:" in result.stdout
    for text in (page.read_text(), notes.read_text()):
        assert "conv2d" in text
        assert f"{source}:shared" in text
        assert "fx-passes optimize" in text
        assert "r 1.html" in text
        assert "equal bits" in text
    assert "--report '" in notes.read_text()
    assert sorted(one.name for one in tmp_path.iterdir()) == ["models.py", "o.onnx", "r 1.html", "r.md"]


def test_markdown_on_standard_output(source: Path, tmp_path: Path) -> None:
    """Nothing else goes there."""
    result = run("optimize", f"{source}:unshared", "-o", tmp_path / "o.onnx", *QUICK, "--markdown", "-")
    assert result.exit_code == 0
    assert result.stdout.startswith("**Equivalent to the original: ")
    assert result.stdout.endswith("</details>\n")
    assert "group 1 differs from group 0" in result.stdout
    assert "written:" not in result.stdout


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--report", "nowhere/r.html"], "cannot write nowhere/r.html"),
        (["--report", "."], "cannot write ."),
        (["--report", "-"], "a page is written to a file"),
        (["--markdown", "nowhere/r.md"], "cannot write nowhere/r.md"),
        (["--markdown", "-", "--json", "-"], "--json has standard output already"),
    ],
)
def test_refused_before_the_work(
    options: list[str], said: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that cannot be written is wrong usage; no stage begins and no model is written."""
    monkeypatch.chdir(tmp_path)
    result = run("optimize", "models.py:shared", "-o", "o.onnx", *QUICK, *options)
    assert result.exit_code == 2
    assert said in result.stderr
    assert "loading" not in result.stderr
    assert not Path("o.onnx").exists()


def test_json_beside_a_page(source: Path, tmp_path: Path) -> None:
    """--json - has standard output for itself, as without a page."""
    page = tmp_path / "r.html"
    arguments = ("optimize", f"{source}:shared", "-o", tmp_path / "o.onnx", *QUICK)
    result = run(*arguments, "--json", "-", "--report", page)
    assert json.loads(result.stdout)["equivalence"]["passed"]
    assert page.exists()
