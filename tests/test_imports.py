"""The order of the tree: what may import what, and no circle of files."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# From what imports nothing of ours to what may import all of it. Names in one line do not know each other.
ORDER = """
fx_passes.errors fx_passes.records fx_passes.kernels fx_passes.example fx_passes.timing
fx_passes.plan
fx_passes.graph
fx_passes.train
fx_passes.capture
fx_passes.find
fx_passes.share fx_passes.resample
fx_passes.costs
fx_passes.lowerings.forms
fx_passes.lowerings
fx_passes.choose
fx_passes.tune
fx_passes.lower fx_passes.bound_graph
fx_passes.compile_backend fx_passes
export.stages export.schemas export.runtime export.read_pt2 export.dynamic_spec
export.read_onnx
export.write_onnx
export.speed export.verify
export.report export.dynamic
export.tune export.loading
export.job
export.pipeline export.reduce
export.cli export
"""
LAYERS = [line.split() for line in ORDER.strip().splitlines()]
LAYER = {name: level for level, names in enumerate(LAYERS) for name in names}


def _modules(root: Path) -> dict[str, Path]:
    files = [file for package in ("fx_passes", "export") for file in (root / package).rglob("*.py")]
    return {".".join(f.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): f for f in files}


def _imports(file: Path, known: set[str]) -> Iterator[str]:
    """The modules of ours that a file imports, wherever in it: also in functions and for types alone."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{file}: a relative import"
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name for name in inner if name in known)
            if node.module in known and not known.issuperset(inner):
                yield node.module


def _part(module: str) -> str:
    """The entry of ``ORDER`` that a module belongs to."""
    while module not in LAYER:
        assert "." in module, "each part of the tree has its place in ORDER"
        module = module.rpartition(".")[0]
    return module


def faults(root: Path) -> list[str]:
    """What is wrong with the imports under ``root``."""
    modules = _modules(root)
    graph = {name: set(_imports(file, set(modules))) - {name} for name, file in modules.items()}
    found = []
    for name, imported in graph.items():
        for other in sorted(imported):
            ours, theirs = _part(name), _part(other)
            if ours != theirs and LAYER[theirs] >= LAYER[ours]:
                found.append(f"{name} imports {other}, which does not lie below it")
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        found.append(f"a circle: {' <- '.join(error.args[1])}")
    return found


def test_imports_run_one_way() -> None:
    """No file imports what lies above it, and no files import each other."""
    assert faults(ROOT) == []


def test_the_order_names_parts_that_exist() -> None:
    """An entry without files is a leftover of a move."""
    modules = _modules(ROOT)
    assert [name for name in LAYER if name not in modules] == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def f():\n    import export.cli\n", "export.cli, which does not lie below"),
        ("if TYPE_CHECKING:\n    from fx_passes.find import judge\n", "fx_passes.find.judge, which does not"),
        ("from fx_passes.graph.edit import cut_value\n", "a circle"),
    ],
)
def test_a_fault_is_found(text: str, said: str, tmp_path: Path) -> None:
    """Negative control: imports upwards and circles, also where they hide."""
    for name, file in _modules(ROOT).items():
        target = tmp_path / file.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(file.read_text() + (text if name == "fx_passes.graph.operators" else ""))
    assert any(said in fault for fault in faults(tmp_path))
