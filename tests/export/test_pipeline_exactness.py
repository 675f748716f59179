"""``optimize`` by the static rules: how exact it is allowed to be, and what it then does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from rich.console import Console
from torch import Tensor, nn
from two_blurs import run

from export.report.site_lines import print_sites
from export.report.text import summary_lines
from export.stages import Stages
from fx_passes.records import EXACTNESS, Exactness

pytestmark = pytest.mark.usefixtures("simple_rules")


class Filters(nn.Module):
    """A blur in two dimensions, then a blur in one. The simple rules lower the second."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Buffer(torch.rand(1, 1, 3, 3).repeat(16, 1, 1, 1) / 3)
        self.line = nn.Buffer(torch.rand(1, 1, 5).repeat(16, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv2d(x, self.image, padding=1, groups=16).sin()
        return F.conv1d(x.flatten(2), self.line, padding=2, groups=16)


# For each: the lowerings of both sites, and how many cases are checked.
CHOSEN: dict[Exactness, tuple[list[str], int]] = {
    "bitwise": (["expand", "expand"], 8),
    "reordered": (["expand", "lift"], 8),
    "finite": (["expand", "polyphase(phases=16)"], 7),
}


@dataclass(frozen=True)
class Static:
    """A run of the static rules: its report, the steps of its stages, and the bytes of its file."""

    report: Any
    steps: list[str]
    file: bytes


def static(exactness: Exactness, folder: Path) -> Static:
    torch.manual_seed(0)
    steps: list[str] = []
    more = {"lowering": "static", "exactness": exactness}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stages, "step", lambda self, text: steps.append(text))
        report = run(Filters(), folder / "out.onnx", (torch.rand(1, 16, 64, 128),), **more)
    return Static(report, steps, (folder / "out.onnx").read_bytes())


@pytest.fixture(scope="module")
def statics(tmp_path_factory: pytest.TempPathFactory) -> dict[Exactness, Static]:
    return {exactness: static(exactness, tmp_path_factory.mktemp(exactness)) for exactness in EXACTNESS}


@pytest.mark.slow
@pytest.mark.parametrize("exactness", EXACTNESS)
def test_static_with_each_exactness(exactness: Exactness, statics: dict[Exactness, Static]) -> None:
    """Nothing is chosen that is less exact than what was asked for.

    The check asks for equal bits only where they are promised. It tries Inf and NaN only where the
    lowering promises to be right for them.
    """
    report, data = statics[exactness].report, statics[exactness].report.to_json()
    wanted, cases = CHOSEN[exactness]
    assert [site["lowering"] for site in data["sites"]] == wanted
    assert [site["exactness"] for site in data["sites"]] == ["bitwise", exactness]
    assert data["equivalence"]["cases"] == cases
    assert ("checking: non-finite" in statics[exactness].steps) == (exactness != "finite")
    assert report.equivalence.bitwise or exactness != "bitwise"
    assert report.equivalence.reference.startswith("equal bits") == (exactness == "bitwise")


@pytest.mark.slow
@pytest.mark.parametrize("exactness", EXACTNESS)
def test_the_report_says_how_exact_it_is(exactness: Exactness, statics: dict[Exactness, Static]) -> None:
    """Each site that was lowered has a line that says how exact it is.

    The summary says how exact the outputs are.
    """
    report = statics[exactness].report
    console = Console(width=300)
    with console.capture() as text:
        print_sites(console, report.findings, report)
    said = {"bitwise": "", "reordered": " (rounds differently)"}.get(
        exactness, " (rounds differently, for finite inputs)"
    )
    wanted, cases = CHOSEN[exactness]
    lines = [line.strip() for line in text.get().splitlines() if "conv1d" in line]
    assert [line.endswith(f"  {wanted[1]}{said}") for line in lines] == [True]
    bits = "equal bits" if report.equivalence.bitwise else "within bounds"
    assert f"equivalence: passed, {bits} in {cases} cases" in "\n".join(summary_lines(report))


@pytest.mark.slow
def test_static_writes_the_same_file_each_time(statics: dict[Exactness, Static], tmp_path: Path) -> None:
    """The file is the same, byte for byte, if the model is built anew.

    It depends neither on the time nor on the folder.
    """
    assert statics["finite"].report.plan.exactness == "finite"
    assert static("finite", tmp_path).file == statics["finite"].file


@pytest.mark.slow
def test_what_is_chosen_is_among_the_candidates(statics: dict[Exactness, Static]) -> None:
    """This holds for a static choice, too."""
    for site in statics["finite"].report.to_json()["sites"]:
        assert site["lowering"] in [candidate["lowering"] for candidate in site["candidates"]]
