"""Each lowered site of a file by itself: what is wrong there is found, whatever stands behind it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from planted import plant, spoil
from torch import Tensor, nn

from export import optimize
from export.report.result import Report
from export.verify.site_check import Replaced, check_sites
from export.write_onnx.lowered_sites import Place
from fx_passes.capture.inference import capture_for_inference
from fx_passes.errors import NotEquivalentError
from fx_passes.lowerings import propose
from fx_passes.plan import Choice, Plan
from fx_passes.resample.lowerable import lowerable_sites

pytestmark = pytest.mark.usefixtures("simple_rules")


class Hidden(nn.Module):
    """Two blurs of which the output shows next to nothing, and the same one twice."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Buffer(torch.rand(1, 1, 5, 5, dtype=dtype).repeat(3, 1, 1, 1))
        self.second = nn.Buffer(torch.rand(1, 1, 7, 7, dtype=dtype).repeat(3, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = F.conv2d(x, self.first, padding=2, groups=3).sigmoid()
        z = F.conv2d(F.pad(y, (3, 3, 3, 3), mode="reflect"), self.second, groups=3).tanh()
        return x + 1e-6 * F.conv2d(z, self.first, padding=2, groups=3).sigmoid()


X = torch.rand(1, 3, 48, 64)


def run(model: nn.Module, path: Path, x: Tensor = X, **more: Any) -> Report:
    return optimize(model.eval(), (x,), path, lowering="static", seconds=0, **more)


def lowered(report: Report) -> int:
    return sum(choice.proposal is not None for choice in report.plan.choices.values())


@pytest.mark.slow
@pytest.mark.parametrize("number", range(3))
def test_a_wrong_tap_that_no_output_shows(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of any call, though another one of the same module is right; the error names its site."""
    assert lowered(run(Hidden(), tmp_path / "right.onnx")) == 3
    plant(monkeypatch, lambda model, places: spoil(model, places[number], 1e-4))
    name = ("conv2d", "conv2d_1", "conv2d_2")[number]
    with pytest.raises(NotEquivalentError, match=f"site {name} by itself.* would be needed") as error:
        run(Hidden(), tmp_path / "out.onnx")
    assert error.value.site == name
    assert not (tmp_path / "out.onnx").exists()


@pytest.mark.slow
def test_one_unit_in_the_last_place_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What rounding could do passes."""
    plant(monkeypatch, lambda model, places: spoil(model, places[0], 6e-8))
    assert lowered(run(Hidden(), tmp_path / "out.onnx")) == 3


@pytest.mark.slow
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_none(value: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NaN is as far away as can be."""
    plant(monkeypatch, lambda model, places: spoil(model, places[1], value))
    with pytest.raises(NotEquivalentError, match="caused by site conv2d_1"):
        run(Hidden(), tmp_path / "out.onnx")


@pytest.mark.slow
def test_open_sizes_are_those_of_the_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A site of an open batch is cut out like any other."""
    open_batch = ({0: torch.export.Dim("batch")},)
    x = torch.rand(2, 3, 48, 64)
    assert lowered(run(Hidden(), tmp_path / "right.onnx", x, dynamic_shapes=open_batch))
    plant(monkeypatch, lambda model, places: spoil(model, places[0], 1e-4))
    with pytest.raises(NotEquivalentError, match="caused by site"):
        run(Hidden(), tmp_path / "out.onnx", x, dynamic_shapes=open_batch)


class Siblings(nn.Module):
    """The same blur of several images, which one call may compute."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Buffer(torch.rand(1, 1, 5, 5).repeat(3, 1, 1, 1))

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.cat([F.conv2d(x, self.kernel, groups=3).sigmoid() for x in (a, b, a * b)])


@pytest.mark.slow
def test_siblings_that_are_merged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One call takes the inputs of all, and gives the outputs of all."""
    model, inputs = Siblings(), (X, X + 1)
    sites, _ = lowerable_sites(capture_for_inference(model, inputs).graph_module)
    choices = {}
    for site in sites:
        proposals, _ = propose(site.resample, site.kernel, "finite", site.siblings)
        (merged,) = [p for p in proposals if p.merged][:1]
        choices[site.id] = Choice(site.key, merged)
    plan = Plan(choices)
    report = optimize(model, inputs, tmp_path / "right.onnx", plan=plan, seconds=0)
    assert lowered(report) == 3
    plant(monkeypatch, lambda model, places: spoil(model, places[0], 1e-4))
    with pytest.raises(NotEquivalentError, match="caused by site"):
        optimize(model, inputs, tmp_path / "out.onnx", plan=plan, seconds=0)


def test_a_site_that_cannot_be_compared_is_noted(tmp_path: Path) -> None:
    """With its id and the reason; the others are compared all the same."""

    class Fails(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise TypeError("not in float64")

    place = Place("key", "x", "y", frozenset(["n"]), torch.zeros(1, 3))
    found = check_sites(tmp_path / "none.onnx", [place, place], {"key": Replaced(Fails(), ("conv",))})
    assert found == (None, ["site conv was not compared by itself: not in float64"], {})
