"""README and the pages: blocks of code run, links lead somewhere, and every lowering has its page."""

from __future__ import annotations

import ast
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import lowering_pages
import pytest
import torch
from click.testing import CliRunner
from code_blocks import PAGES, ROOT, RUN_HERE, Block, blocks_of, commands_of, form

import fx_passes.lowerings
from export.cli import main
from fx_passes.example import blur

LANGUAGES = {"python", "sh", "text", "json"}
# What a block of the shell may have besides the commands of this project.
OTHER = (
    "python3 -m venv ",
    ". .venv/bin/activate",
    "pip install ",
    "pytest ",
    "pre-commit install",
    "PYTHONPATH=. olive run ",
)
SHORT = ["--seconds", "1", "--budget", "2"]


@pytest.fixture(scope="module")
def model_onnx() -> bytes:
    """What the pages call ``model.onnx``: the built-in example, as torch exports it."""
    model, inputs = blur()
    program = torch.onnx.export(model, inputs, dynamo=True, verbose=False)
    assert program is not None
    return program.model_proto.SerializeToString()


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN_HERE, ids=lambda page: page.name)
def test_every_block_runs(
    page: Path,
    model_onnx: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Block after block, as a reader would. Python prints what is shown. Commands exit with 0, and print
    what has the form that is shown."""
    if page.name == "olive.md":
        pytest.importorskip("olive")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    Path("model.onnx").write_bytes(model_onnx)
    Path("my_model.py").write_text("from fx_passes.example import blur as build\n")
    scope: dict[str, object] = {"__name__": page.stem}
    shown, printed = lines, ""
    for block in blocks_of(page.read_text()):
        if block.title is not None:
            Path(block.title).write_text(block.text)
        elif block.language == "python":
            exec(compile(block.text, str(page), "exec"), scope)
            shown, printed = lines, capsys.readouterr().out
        elif block.language == "sh":
            shown, printed = form, "".join(map(run, commands_of(block)))
        elif block.language == "text":
            assert set(shown(block.text)) <= set(shown(printed))


def lines(output: str) -> list[str]:
    """The lines as they are."""
    return output.splitlines()


def run(command: str) -> str:
    """What a command prints, if it is one of this project or of a tool that a page is about."""
    name, *arguments = shlex.split(command)
    if command.startswith("PYTHONPATH=. olive"):
        return subprocess.run(command, shell=True, check=True, capture_output=True, text=True).stdout
    if name != "fx-passes":
        return ""
    if arguments[0] == "optimize":
        arguments += SHORT
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_is_understood(page: Path) -> None:
    """Its language is one that is run or checked. Each command exists, and so do its options."""
    for block in blocks_of(page.read_text()):
        assert block.language in LANGUAGES
        if block.language == "json":
            json.loads(block.text)
        for command in commands_of(block) if block.language == "sh" else ():
            exists(command)


def exists(command: str) -> None:
    """Fails for a command that is neither of this project nor of those tools."""
    name, *arguments = shlex.split(command)
    if name == "python":
        text = (ROOT / arguments[0]).read_text()
        assert all(f'"{option}"' in text for option in arguments if option.startswith("--")), command
    elif name == "fx-passes":
        known = {option for parameter in main.commands[arguments[0]].params for option in parameter.opts}
        assert {option for option in arguments if option.startswith("--")} <= known, command
    else:
        assert command.startswith(OTHER), command


def test_a_command_that_does_not_exist_is_found() -> None:
    """Negative control: another option, another file of the benchmarks, another tool."""
    for command in ("fx-passes find a.py:b --fast", "python benchmarks/none.py", "make"):
        with pytest.raises((AssertionError, FileNotFoundError)):
            exists(command)


def test_an_output_of_another_form_is_found() -> None:
    """Negative control: numbers, times and the choice of a lowering may differ; words and columns may not."""
    shown = "site  op  verdict\na/conv2d  conv2d  lift\nspeed: 3.1 ms -> 2 ms, 1.5x [1, 2]: faster\n"
    other = "site  op  verdict\na/conv2d  conv2d  expand\nspeed: 7 ms -> 7.5 ms, 0.9x [0.8, 1]: slower\n"
    assert form(shown) == form(other)
    assert form(shown) != form(other.replace("a/conv2d", "b/conv2d"))
    assert form(shown) != form(other.replace("speed", "pace"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    """Links and pictures of a repository that is read without the built pages."""
    text = page.read_text()
    links = re.findall(r"\]\(([^)\s]+)\)|(?:src|srcset)=\"([^\"]+)\"", text)
    for link in (a or b for a, b in links):
        path, _, anchor = link.partition("#")
        if path.startswith("https://"):
            continue
        target = page.parent / path if path else page
        assert target.is_file(), link
        if target.suffix == ".md" and anchor:
            assert anchor in anchors(target.read_text()), link


def anchors(markdown: str) -> set[str]:
    """The anchors that GitHub and mkdocs make of the headings."""
    headings = re.findall(r"^#+ (.*)$", markdown, re.M)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def test_readme_is_short() -> None:
    """The long tables are on pages of their own."""
    assert (ROOT / "README.md").read_text().count("\n") <= 150


def test_every_guarantee_has_a_test_that_exists() -> None:
    """Each line of the tables of guarantees names tests, and these are functions in those files."""
    text = (ROOT / "docs/guarantees.md").read_text()
    lines = [line for line in text.splitlines() if re.match(r"\| [A-Z`]", line) and "::" in line]
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text)
    assert len(lines) > 20
    assert len(named) >= len(lines)
    for file, function in named:
        tree = ast.parse((ROOT / file).read_text())
        assert function in {n.name for n in tree.body if isinstance(n, ast.FunctionDef)}, (
            f"{file}::{function}"
        )


@pytest.mark.parametrize("name", sorted(fx_passes.lowerings.MODULES))
def test_every_lowering_has_its_page(name: str) -> None:
    """With a drawing, the exactness, the reasons of its tests, and what was measured; it is in the table."""
    text = lowering_pages.page(name)
    assert "Before:" in text
    assert re.search(r"^- `(bitwise|reordered|finite)`: ", text, re.M)
    refused, _, measured = text.partition("## Where it is not possible")[2].partition("## Measured")
    assert refused.count("\n- ") >= 2
    assert "benchmarks/grid.py" in measured
    assert f"[`{name}`](lowerings/{name}.md)" in lowering_pages.table()
    assert "<!-- the table of all lowerings -->" in (ROOT / "docs/lowerings.md").read_text()


def test_a_lowering_without_a_drawing_gets_no_page() -> None:
    """Negative control: the page cannot be made, so the pages are not built."""
    for docstring in ("A title.", "A title.\n\nNo drawing.\n\nProse.", "A title.\n\nBefore: a  after: b"):
        with pytest.raises(ValueError, match="no drawing"):
            lowering_pages.parts(docstring)


@pytest.mark.slow
def test_the_pages_are_built(tmp_path: Path) -> None:
    """A warning is an error, such as a link to nowhere. Nothing is loaded from elsewhere."""
    pytest.importorskip("material")
    pytest.importorskip("mkdocstrings")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(tmp_path / "site")]
    subprocess.run(command, cwd=ROOT, check=True)
    for name in ("index", "api/index", "command-line/index", "lowerings/separable/index"):
        text = (tmp_path / "site" / f"{name}.html").read_text()
        assert not re.search(r"<(link|script|img)\b[^>]*(src|href)=\"?https?:", text)


def test_blocks_are_read() -> None:
    """A title makes a file of a block; a comment is no command."""
    text = '```python title="a.py"\nx = 1\n```\n\n```sh\n.venv/bin/fx-passes find a  # why\n```\n'
    first, second = blocks_of(text)
    assert first == Block("python", "a.py", "x = 1\n")
    assert commands_of(second) == ["fx-passes find a"]
