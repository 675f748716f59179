"""The page of each lowering: what its file says, and what the benchmark measured. A new file gets its page.

Nothing is imported from the package. The text comes from docstrings, the exactness from the proposals, and
the reasons from the tests.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

from drawings import drawn

ROOT = Path(__file__).parents[2]
LOWERINGS = ROOT / "fx_passes" / "lowerings"
CASES = ROOT / "tests" / "lowerings"
MEASURED = ROOT / "benchmarks" / "results" / "by_lowering.md"
EXACTNESS = {
    "bitwise": "the same bits as the original",
    "reordered": "the same products, added in another order",
    "finite": "the same for finite numbers; an Inf or NaN in the input may reach more outputs",
}


def names() -> list[str]:
    """The lowerings, as their registry finds them: one for each file."""
    return sorted(file.stem for file in LOWERINGS.glob("*.py") if file.stem != "__init__")


def page(name: str) -> str:
    """The page of a lowering, in markdown."""
    tree = ast.parse((LOWERINGS / f"{name}.py").read_text())
    title, drawing, prose = parts(ast.get_docstring(tree) or "")
    return "\n\n".join(
        [
            f"# {name}",
            title,
            f"```text\n{drawing}\n```",
            prose,
            "## In a file",
            "An example of the tests: each node with its weight, and the shape of its result.",
            drawn(name),
            "## Exactness",
            "\n".join(f"- `{word}`: {EXACTNESS[word]}" for word in exactness(tree)),
            "## What is timed",
            parameters(tree),
            "## Where it is not possible",
            "The report then has the reason. The tests have an example of each:",
            "\n".join(f"- {reason}" for reason in reasons(name)),
            "## Measured",
            measured(name),
        ]
    )


def table() -> str:
    """All lowerings in one table, each with a link to its page."""
    lines = ["| lowering | what it does | exactness |", "|---|---|---|"]
    for name in names():
        tree = ast.parse((LOWERINGS / f"{name}.py").read_text())
        title = parts(ast.get_docstring(tree) or "")[0].rstrip(".")
        lines.append(f"| [`{name}`](lowerings/{name}.md) | {title} | {', '.join(exactness(tree))} |")
    return "\n".join(lines)


def parts(docstring: str) -> tuple[str, str, str]:
    """The first sentence of a file, its drawing (from ``Before:`` on), and what follows in prose.

    Raises:
        ValueError: one of them is missing, so that no page can be made.
    """
    title, _, rest = docstring.partition("\n\n")
    drawing, _, prose = rest.partition("\n\n")
    if not drawing.startswith("Before:") or "after:" not in drawing.lower() or not prose:
        raise ValueError(f"no drawing from Before: to After:, or no prose: {docstring!r}")
    said = " ".join(title.split())
    return said, drawing, re.sub(r"``(.+?)``", r"`\1`", prose)


def exactness(tree: ast.Module) -> list[str]:
    """What the file says of its proposals, the most exact first."""
    words = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    return [word for word in EXACTNESS if word in words]


def parameters(tree: ast.Module) -> str:
    """What ``propose`` says of its proposals."""
    (propose,) = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "propose")
    return re.sub(r"``(.+?)``", r"`\1`", ast.get_docstring(propose) or "")


def reasons(name: str) -> list[str]:
    """Why the lowering refuses a site, in the words of its tests: no other reason comes up there."""
    tree = ast.parse((CASES / f"{name}.py").read_text())
    (listed,) = (n.value for n in ast.walk(tree) if isinstance(n, ast.keyword) and n.arg == "refusals")
    named = {node.id for node in ast.walk(listed) if isinstance(node, ast.Name)}
    shared = ast.parse((CASES / "refused.py").read_text())
    used = [n for n in shared.body if isinstance(n, ast.Assign | ast.AnnAssign) and _target(n) in named]
    found = []
    for node in (inner for part in [listed, *used] for inner in ast.walk(part)):
        if isinstance(node, ast.Tuple) and len(node.elts) == 3:
            reason = node.elts[2]
            if isinstance(reason, ast.Constant) and isinstance(reason.value, str):
                found.append(reason.value)
    return list(dict.fromkeys(found))


def _target(node: ast.Assign | ast.AnnAssign) -> str:
    target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
    return target.id if isinstance(target, ast.Name) else ""


def measured(name: str) -> str:
    """The section of the lowering in the results of the benchmark, and how they were made."""
    head, *sections = re.split(r"^## ", MEASURED.read_text(), flags=re.M)
    made = head.partition("\n\n")[2].strip()
    for section in sections:
        title, _, text = section.partition("\n")
        if title.strip() == name:
            return f"{text.strip()}\n\n{made}"
    return f"The grid of the benchmark has no point at which this lowering was timed.\n\n{made}"
