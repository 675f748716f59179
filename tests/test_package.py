"""The package as others get it: a wheel that runs and type-checks elsewhere, with its licence and version."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

import fx_passes

ROOT = Path(__file__).parents[1]
SNIPPET = """
import torch
from torch import nn
import export
import fx_passes

conv = nn.Conv2d(3, 3, 3, groups=3)
conv.weight.data = torch.rand(1, 1, 3, 3).repeat(3, 1, 1, 1)
shared: torch.fx.GraphModule = fx_passes.share_kernels(conv)
assert sum(finding.shared for finding in fx_passes.find_shared_kernels(conv)) == 1
path: str = "out.onnx"
report = export.optimize(conv.eval(), (torch.rand(1, 3, 8, 8),), path, lowering="expand", seconds=0)
passed: bool = report.equivalence.passed
assert passed and fx_passes.__version__
export.write_html(report, "out.html")
"""


def test_one_version() -> None:
    """The version of the module is that of the package, and CHANGELOG has a place for the next."""
    assert re.fullmatch(r"\d+\.\d+\.\d+", fx_passes.__version__)
    assert metadata.version("fx-passes") == fx_passes.__version__
    assert "## [Unreleased]" in (ROOT / "CHANGELOG.md").read_text()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of what git tracks."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True).stdout
    for name in files.decode().split("\0"):
        if name.startswith(("fx_passes/", "export/")) or name in ("pyproject.toml", "README.md", "LICENSE"):
            target = source / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(built), str(source)]
    subprocess.run(command, check=True)
    (file,) = built.glob("*.whl")
    return file


@pytest.mark.slow
def test_what_is_in_the_wheel(wheel: Path) -> None:
    """Both packages with the mark of typed packages, the files of the report, the licence, and no tests."""
    names = zipfile.ZipFile(wheel).namelist()
    assert {"fx_passes/py.typed", "export/py.typed", "export/schemas/optimize.json"} <= set(names)
    files = {f"export/report/page/{file.name}" for file in (ROOT / "export/report/page").iterdir()}
    assert len(files) >= 5
    assert files <= set(names)
    assert any(name.endswith("licenses/LICENSE") for name in names)
    folders = {name.partition("/")[0] for name in names}
    assert {f for f in folders if not f.endswith(".dist-info")} == {"fx_passes", "export"}


@pytest.mark.slow
def test_the_wheel_runs_and_type_checks_elsewhere(wheel: Path, tmp_path: Path) -> None:
    """A snippet of a user, in a folder of its own, with nothing of this one in reach."""
    installed, folder = tmp_path / "installed", tmp_path / "user"
    folder.mkdir()
    (folder / "snippet.py").write_text(SNIPPET)
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--target",
        str(installed),
        str(wheel),
    ]
    subprocess.run(command, check=True)
    environment = {**os.environ, "PYTHONPATH": str(installed), "MYPYPATH": str(installed)}
    where = "import fx_passes; print(fx_passes.__file__)"
    found = subprocess.run(
        [sys.executable, "-c", where], cwd=folder, env=environment, check=True, capture_output=True, text=True
    )
    assert found.stdout.startswith(str(installed))
    subprocess.run([sys.executable, "snippet.py"], cwd=folder, env=environment, check=True)
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--follow-imports=silent", "--ignore-missing-imports", "snippet.py"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 0, checked.stdout
