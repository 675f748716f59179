"""The drawings on the pages of the lowerings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import drawings
import lowering_pages
import pytest

from fx_passes.lowerings import MODULES

NODES: list[dict[str, Any]] = [
    {"op": "input", "weight": "", "out": "1x3", "reads": []},
    {"op": "<Conv>", "weight": "1x1x3", "out": "1x9", "reads": [0]},
    {"op": "Concat", "weight": "", "out": "2x9", "reads": [0, 1]},
]


def test_every_lowering_is_drawn() -> None:
    """Each has its nodes in the stored file, and both drawings on its page."""
    assert json.loads(drawings.FILE.read_text()).keys() == MODULES.keys()
    for name in MODULES:
        assert lowering_pages.page(name).count("<svg") == 2, name
    assert "no drawing yet" in drawings.drawn("a_new_one")


def test_a_drawing() -> None:
    """A box for each node, its text escaped; a straight line to the next one, a bent one to another."""
    drawn = drawings.drawing(NODES, "a & b")
    assert drawn.count("<rect") == 3
    assert "&lt;Conv&gt; 1x1x3</text>" in drawn
    assert "<title>a &amp; b</title>" in drawn
    assert (drawn.count("V44"), drawn.count("V84"), drawn.count("H48V97H60")) == (1, 1, 1)


@pytest.mark.slow
def test_the_drawings_are_of_this_code(tmp_path: Path) -> None:
    """What is stored is what the code writes today: for one lowering with a branch, and one without."""
    stored = json.loads(drawings.FILE.read_text())
    wanted = ["low_rank", "separable"]
    assert drawings.examples(tmp_path, wanted) == {name: stored[name] for name in wanted}
