"""A row and a column as one site, from a model to its file."""

from __future__ import annotations

import json
from pathlib import Path

import kornia
import numpy as np
import onnx
import pytest
import torch
from torch import Tensor
from torch.export import Dim

from export.pipeline import optimize
from export.report.text import summary_lines
from export.runtime.session import open_session, run
from export.write_onnx.exporter import stock_export
from fx_passes.errors import NotEquivalentError
from fx_passes.plan import Plan
from fx_passes.resample import compose
from fx_passes.resample.axes import Resample

GAUSS = kornia.filters.GaussianBlur2d((15, 15), (3.0, 3.0)).eval()
X = torch.rand(1, 3, 96, 128)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["fixed", "open", "onnx"])
def test_a_gaussian_as_people_use_it(kind: str, tmp_path: Path) -> None:
    """Both convolutions go. The report says of each that it is computed together with the other."""
    sizes = ({0: Dim.AUTO, 2: Dim("h", min=15), 3: Dim("w", min=15)},) if kind == "open" else None
    given = GAUSS if kind != "onnx" else stock_export(GAUSS, (X,), tmp_path / "in.onnx")
    file = tmp_path / "o.onnx"
    report = optimize(given, (X,), file, lowering="static", dynamic_shapes=sizes, seconds=0)
    assert report.equivalence.passed
    assert not report.equivalence.notes
    first, second = report.findings
    assert report.lowering_of(first) == report.lowering_of(second) not in (None, "expand")
    assert report.together_with(first) == (second.id,)
    rows = report.to_json()["sites"]
    assert [row["together_with"] for row in rows] == [[second.id], [first.id]]
    assert [row["exactness"] for row in rows] == ["finite", "finite"]
    assert rows[0]["candidates"] == rows[1]["candidates"]
    assert summary_lines(report)
    # The plan names the two as one, and gives the same file again.
    plan = Plan.from_json(report.plan.to_json())
    assert list(json.loads(report.plan.to_json())["sites"]) == [
        first.id,
        second.id,
        f"{first.id}+{second.id}",
    ]
    again = tmp_path / "again" / "o.onnx"
    again.parent.mkdir()
    optimize(given, (X,), again, plan=plan, dynamic_shapes=sizes, seconds=0)
    assert [node.op_type for node in onnx.load(again).graph.node] == [
        node.op_type for node in onnx.load(file).graph.node
    ]
    others = [torch.rand(3, 3, 15, 200), torch.rand(2, 3, 61, 33)] if kind == "open" else []
    for x in (X, *others):
        [found] = run(open_session(file), [x.numpy()])
        np.testing.assert_allclose(found, GAUSS(x).numpy(), atol=1e-6)


@pytest.mark.slow
def test_a_wrong_product_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that is off by 0.1 % is no product of the two, and both are blamed."""
    right = compose.product

    def wrong(pair: tuple[Resample, Resample], first: Tensor, second: Tensor) -> Tensor | None:
        kernel = right(pair, first, second)
        return None if kernel is None else kernel * 1.001

    monkeypatch.setattr(compose, "product", wrong)
    with pytest.raises(NotEquivalentError, match=r"caused by site conv2d\+conv2d_1"):
        optimize(GAUSS, (X,), tmp_path / "o.onnx", lowering="static", seconds=0)
