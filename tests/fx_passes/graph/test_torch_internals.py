"""Private names of torch stand in one file, and each of them has a test in a file beside this one."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fx_passes.graph import torch_internals as internals

ROOT = Path(__file__).parents[3]
PLACE = Path(internals.__file__).relative_to(ROOT)


def _private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def _torchs_own() -> frozenset[str]:
    """The private attributes of the torch classes that we use. Our attributes have other names."""
    graph_module = torch.fx.symbolic_trace(nn.Conv2d(1, 1, 1))
    holders = (graph_module, nn.ConvTranspose2d(1, 1, 1), torch.fx.Tracer(), graph_module.graph)
    return frozenset(name for holder in holders for name in dir(holder) if _private(name))


TORCHS_OWN = _torchs_own()


def _from_elsewhere(tree: ast.AST) -> set[str]:
    """The names that a file imports from packages other than torch."""
    found: set[str] = set()
    for node in ast.walk(tree):
        for alias in node.names if isinstance(node, ast.Import | ast.ImportFrom) else ():
            module = node.module if isinstance(node, ast.ImportFrom) else alias.name
            if (module or "").partition(".")[0] != "torch":
                found.add(alias.asname or alias.name.partition(".")[0])
    return found


def _root(node: ast.expr) -> str:
    """The first name of an expression: ``torch`` of ``torch.ops.aten``, ``super`` of ``super()``."""
    while isinstance(node, ast.Attribute | ast.Call | ast.Subscript):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""


def private_uses(text: str) -> list[str]:
    """The lines of a file that touch a private name of torch: imports, attributes, overrides, texts."""
    tree = ast.parse(text)
    ours = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    ours |= {
        node.attr if isinstance(node, ast.Attribute) else node.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute | ast.Name) and isinstance(node.ctx, ast.Store)
    }
    others = _from_elsewhere(tree)
    lines = text.splitlines()
    methods = [inner for node in ast.walk(tree) if isinstance(node, ast.ClassDef) for inner in node.body]
    found = {m.lineno for m in methods if isinstance(m, ast.FunctionDef) and m.name in TORCHS_OWN}
    found |= {getattr(n, "lineno", 0) for n in ast.walk(tree) if _touches(n, ours - TORCHS_OWN, others)}
    return [lines[number - 1].strip() for number in sorted(found)]


def _touches(node: Any, ours: set[str], others: set[str]) -> bool:
    """Whether a node touches a private name of torch.

    ``ours`` holds the names that the file defines, ``others`` those that it imports from other packages.
    """
    if isinstance(node, ast.Import):
        modules = [alias.name.split(".") for alias in node.names]
        return any(parts[0] == "torch" and any(map(_private, parts)) for parts in modules)
    if isinstance(node, ast.ImportFrom):
        parts = (node.module or "").split(".")
        return parts[0] == "torch" and any(map(_private, [*parts, *(alias.name for alias in node.names)]))
    if isinstance(node, ast.Constant):
        return node.value in TORCHS_OWN if isinstance(node.value, str) else False
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and len(node.args) > 1:
        name = node.args[1].value if isinstance(node.args[1], ast.Constant) else None
        return node.func.id in ("getattr", "hasattr", "setattr") and isinstance(name, str) and _private(name)
    if isinstance(node, ast.Attribute) and _private(node.attr):
        root = _root(node.value)
        if root in others and isinstance(node.value, ast.Name | ast.Attribute):
            return False
        return root not in ("self", "cls", "super") or node.attr not in ours
    return False


FILES = sorted(
    file.relative_to(ROOT)
    for package in ("fx_passes", "export", "benchmarks", "examples")
    for file in (ROOT / package).rglob("*.py")
)


@pytest.mark.parametrize("file", [f for f in FILES if f.parts[0] in ("fx_passes", "export")], ids=str)
def test_no_other_file_touches_them(file: Path) -> None:
    """Only one file imports, reads, overrides or spells a private name of torch.

    Private names of onnx and python are allowed.
    """
    found = private_uses((ROOT / file).read_text())
    assert (found == []) is (file != PLACE), found


@pytest.mark.parametrize(
    "text",
    [
        "import torch._dynamo",
        "import torch.utils._pytree as pytree",
        "from torch._subclasses import FakeTensorMode",
        "from torch.utils import _pytree",
        "def f():\n    from torch.fx.graph_module import _assign_attr",
        "torch._assert_async(x)",
        "torch.ops.aten._convolution.default",
        "nn.modules.conv._ConvNd",
        "aten._convolution",
        "module._parameters",
        "node.target._schema.arguments",
        "self.module()._buffers",
        "class A(nn.Module):\n    def f(self):\n        return self._parameters",
        "class A(nn.Module):\n    def f(self):\n        return self._unknown",
        "class A(nn.Module):\n    def f(self):\n        return super()._unknown",
        "class A(nn.Module):\n    def _load_from_state_dict(self, *args): ...",
        "vars(module)['_modules']",
        "getattr(program, '_guards_fn', None)",
    ],
)
def test_a_use_is_found(text: str) -> None:
    """Negative control: each way to touch a private name is found."""
    header = "import torch\nfrom torch import nn\n"
    assert private_uses(header) == []
    assert private_uses(header + text) == [text.splitlines()[-1].strip()]


def test_what_is_not_torchs_is_none() -> None:
    """Our own names, python's, onnx's, and names with two underscores are not found."""
    text = """
import onnx, pickle
import torch
class A(torch.nn.Module):
    _kept = 1
    def __init__(self):
        self._copies = {}
    def _own(self):
        return self._copies, self._own(), self.__class__, type(self).__name__, self._kept
pickle._Unpickler, onnx._custom
"""
    assert private_uses(text) == []


def _public_names(text: str) -> Iterator[str]:
    """The names that a file defines or passes on."""
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.ImportFrom):
            yield from (alias.name for alias in node.names if alias.asname == alias.name)


def _names_of_tests() -> set[str]:
    """The functions of the files ``test_torch_*.py`` in this folder."""
    files = Path(__file__).parent.glob("test_torch_*.py")
    bodies = [ast.parse(file.read_text()).body for file in files]
    return {node.name for body in bodies for node in body if isinstance(node, ast.FunctionDef)}


def test_each_has_a_canary() -> None:
    """Each name has its test: ``test_conv_nd`` for ``ConvNd``. Who adds a name adds a test."""
    names = [name for name in _public_names((ROOT / PLACE).read_text()) if not name.startswith("_")]
    canaries = _names_of_tests()
    tests = {name: re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower() for name in names}
    assert [name for name, test in tests.items() if f"test_{test}" not in canaries] == []
    assert len(names) > 40


def test_each_is_used() -> None:
    """Each name is used. A name that nobody uses goes away, with its test."""
    texts = [(ROOT / file).read_text() for file in FILES if file != PLACE]
    names = [name for name in _public_names((ROOT / PLACE).read_text()) if not name.startswith("_")]
    used = [name for name in names if any(re.search(rf"\b{name}\b", text) for text in texts)]
    assert used == names
