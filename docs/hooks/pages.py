"""What the pages have beyond the files in ``docs/``.

README is the first page. Each lowering has one. There are the help of each command, the functions of Python,
and files of the root that pages link to. mkdocs calls the functions whose names begin with ``on_``.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Any

from lowering_pages import ROOT, names, page, table
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

TABLE = "<!-- the table of all lowerings -->"
RESULTS = r"<!-- results: (\w+) -->"
# Files outside docs/ that become pages, and the links to them.
MOVED = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changes.md"}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """One entry of the navigation for each lowering, where the list says ``lowerings/*.md``."""
    for section in config.nav or ():
        for pages in section.values():
            if isinstance(pages, list) and "lowerings/*.md" in pages:
                place = pages.index("lowerings/*.md")
                pages[place : place + 1] = [{"Each lowering": [{n: f"lowerings/{n}.md"} for n in names()]}]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that are made."""
    for path, text in made().items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Puts the table of the lowerings, and results of benchmarks, into the pages that want them."""
    return re.sub(RESULTS, lambda found: results(found[1]), markdown.replace(TABLE, table()))


def made() -> dict[str, str]:
    """Each page that is made, by its path among the pages."""
    pages = {target: moved((ROOT / source).read_text()) for source, target in MOVED.items()}
    pages |= {f"lowerings/{name}.md": page(name) for name in names()}
    pages |= {"command-line.md": command_line(), "api.md": api()}
    return pages | {"LICENSE.txt": (ROOT / "LICENSE").read_text()}


def results(name: str) -> str:
    """A file in ``benchmarks/results/`` without its heading."""
    return (ROOT / "benchmarks" / "results" / f"{name}.md").read_text().partition("\n\n")[2]


def moved(markdown: str) -> str:
    """A file of the root as a page: links lead to pages, and the picture follows the colours of the page."""
    markdown = re.sub(r"(\]\(|srcset=\"|src=\")docs/", r"\1", markdown)
    for source, target in MOVED.items():
        markdown = markdown.replace(f"]({source}", f"]({target}")
    markdown = markdown.replace("](LICENSE)", "](LICENSE.txt)")
    return re.sub(r"<picture>.*?alt=\"(.*?)\".*?</picture>", _both, markdown, flags=re.S)


def _both(picture: re.Match[str]) -> str:
    return "\n".join(f"![{picture[1]}](pictures/speed-{name}.svg#only-{name})" for name in ("light", "dark"))


def api() -> str:
    """Everything that the two packages offer, for mkdocstrings to fill in from the docstrings."""
    parts = ["# Python"]
    for package in ("fx_passes", "export"):
        tree = ast.parse((ROOT / package / "__init__.py").read_text())
        parts.append(f"## {package}\n\n{ast.get_docstring(tree)}")
        parts += [f"::: {path}" for path in sorted(offered(tree), key=lambda path: path.rpartition(".")[2])]
    return "\n\n".join(parts)


def offered(tree: ast.Module) -> list[str]:
    """The names in ``__all__``, each with the module that defines it, which may have the same name."""
    made = {
        alias.name: f"{node.module}.{alias.name}"
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    (listed,) = (
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and node.targets[0].id == "__all__"
    )
    return [made[name] for name in ast.literal_eval(listed)]


def command_line() -> str:
    """The help of all commands, as the command line prints it."""
    parts = ["# Command line", *_EXIT_CODES]
    for title, text in helps():
        parts.append(f"## {title}\n\n```text\n{text}\n```")
    return "\n\n".join(parts)


def helps() -> Iterator[tuple[str, str]]:
    """Each command and its help."""
    from export.cli import main

    context = main.make_context("fx-passes", [], resilient_parsing=True, max_content_width=100)
    yield "fx-passes", main.get_help(context)
    for name, command in main.commands.items():
        inner = command.make_context(name, [], parent=context, resilient_parsing=True)
        yield f"fx-passes {name}", command.get_help(inner)


_EXIT_CODES = (
    "This page is what `--help` prints.",
    "An exit code of 0 means: done and verified. [All exit codes](guarantees.md#exit-codes)",
)
