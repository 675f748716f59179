"""``docs/add-a-lowering.md``: two files add a lowering, and a wrong one does not pass."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FAULTS = {
    "none": ("", ""),
    "a tap left out": ("range(self.width.taps)", "range(max(self.width.taps - 1, 1))"),
    "too exact": ('"finite" if resample.block_diagonal else "reordered"', '"bitwise"'),
    "a refusal that no case knows": (
        "    if taps > _MOST:\n",
        '    if kernel.shape[-1] == 2:\n        return refuse("two", "two")\n    if taps > _MOST:\n',
    ),
}


def copy_with_files_of_page(target: Path, fault: str) -> None:
    """The package and its tests, and the files that the page shows, as it shows them."""
    for folder in ("fx_passes", "export", "tests/lowerings", "tests/support"):
        shutil.copytree(ROOT / folder, target / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("tests/conftest.py", "pyproject.toml"):
        shutil.copy(ROOT / file, target / file)
    blocks = re.findall(
        r"^```python\n# (\S+)\n(.*?)^```", (ROOT / "docs/add-a-lowering.md").read_text(), re.M | re.S
    )
    assert len(blocks) == 2
    for path, text in blocks:
        (target / path).write_text(text.replace(*FAULTS[fault]))


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_the_page_adds_a_lowering(fault: str, tmp_path: Path) -> None:
    """The laws run over the two files of the page, and a fault in them is found."""
    copy_with_files_of_page(tmp_path, fault)
    command = [sys.executable, "-m", "pytest", "-m", "", "-n", "0", "-k", "taps", "tests/lowerings"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    run = re.findall(r"(\d+) (?:passed|failed)", done.stdout)
    assert sum(map(int, run)) > 15, done.stdout
    assert (done.returncode == 0) == (fault == "none"), done.stdout
