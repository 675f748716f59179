"""Verdicts come from what rounding can do to an output, not from the luck of its own error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import numpy_helper
from torch import Tensor, nn

from export import optimize
from export.report.result import Report
from export.runtime.arrays import tensor_arrays
from export.verify.equivalence import check_equivalence
from export.verify.reference import float64_reference
from fx_passes.errors import NotEquivalentError
from fx_passes.lower import lower_in_place

pytestmark = pytest.mark.usefixtures("simple_rules")


def window(size: int = 11, sigma: float = 1.5) -> Tensor:
    """A Gaussian, in float32."""
    line = torch.exp(-((torch.arange(float(size)) - size // 2) ** 2) / (2 * sigma**2))
    return torch.outer(line, line) / line.sum() ** 2


class Metric(nn.Module):
    """The mean of a ratio of local moments: one number, of as many windows as there are pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Buffer(window()[None, None].repeat(3, 1, 1, 1))

    def blur(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.kernel, groups=3)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        mean = self.blur(a) * self.blur(b)
        return ((self.blur(a * b) - mean) / (self.blur(a * a) - self.blur(a) ** 2 + 1e-3)).mean()


def lowered(report: Report) -> list[str]:
    return [c.proposal.lowering for c in report.plan.choices.values() if c.proposal is not None]


def static(model: nn.Module, inputs: tuple[Any, ...], path: Path) -> Report:
    return optimize(model.eval(), inputs, path, lowering="static", seconds=0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_one_number_as_output_is_lowered(seed: int, tmp_path: Path) -> None:
    """A number whose own error is zero by chance still moves by what rounding does to it."""
    torch.manual_seed(seed)
    a = torch.rand(1, 3, 80, 80)
    report = static(Metric(), (a, a + 0.05 * torch.randn_like(a)), tmp_path / "o.onnx")
    assert len(lowered(report)) == 5


@pytest.mark.slow
@pytest.mark.parametrize("name", ["visual_information_fidelity", "spatial_correlation_coefficient"])
def test_metrics_of_a_package_are_lowered(name: str, tmp_path: Path) -> None:
    """Torchmetrics' own, with a window on each channel."""
    from torchmetrics.functional import image

    metric = getattr(image, name)

    class Of(nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return metric(a, b)

    a = torch.rand(1, 1, 96, 96)
    report = static(Of(), (a, a + 0.05 * torch.randn_like(a)), tmp_path / "o.onnx")
    assert lowered(report)


def reference_of(model: nn.Module, x: Tensor, path: Path) -> str:
    report = static(model, (x,), path)
    assert lowered(report)
    assert report.equivalence.notes == ()
    return report.equivalence.reference


class Blur(nn.Module):
    """A blur of 16 channels; ``before`` and ``kernel`` are given by the models below."""

    def __init__(self) -> None:
        super().__init__()
        self.taps = nn.Buffer(window().expand(16, 1, 11, 11).clone())

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.taps, groups=16)


def normed() -> nn.Module:
    return nn.Sequential(nn.utils.weight_norm(nn.Conv2d(16, 16, 1)), Blur())


def parametrized() -> nn.Module:
    return nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(16, 16, 1)), Blur())


class Plain(Blur):
    """The kernel is no buffer, and what is computed from it at the start cannot be copied."""

    def __init__(self) -> None:
        super().__init__()
        weight = nn.Parameter(window().expand(16, 1, 11, 11).clone())
        self.plain = weight * 1.0

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + F.conv2d(x, self.plain.detach(), groups=16)


class Cast(Blur):
    """Its own code asks for float32."""

    def forward(self, x: Tensor) -> Tensor:
        assert x.dtype == torch.float32
        return super().forward(x.float() + torch.ones(1, dtype=torch.float32)).to(torch.float32)


@pytest.mark.slow
@pytest.mark.parametrize("make", [normed, parametrized, Plain, Cast])
def test_the_reference_is_float64_whatever_the_model_is_made_of(make: Any, tmp_path: Path) -> None:
    """A weight norm and a computed tensor cannot be copied; a cast undoes a conversion. Neither is done."""
    said = reference_of(make(), torch.rand(1, 16, 40, 40), tmp_path / "o.onnx")
    assert said == "float64, within what rounding can do"


def test_a_reference_that_is_lost_is_said(tmp_path: Path) -> None:
    """An operator without float64: the original file is what counts, and a note says why."""

    class Narrow(Blur):
        def forward(self, x: Tensor) -> Tensor:
            if x.untyped_storage().nbytes() != 4 * x.numel():
                raise TypeError("made for float32 alone")
            return super().forward(x)

    model, x = Narrow().eval(), torch.rand(1, 16, 40, 40)
    notes: list[str] = []
    reference = float64_reference(model, (x,), notes=notes)
    # The graph has no such check in it.
    assert reference is not None
    assert notes == []


class Levels(nn.Module):
    """A picture of integers, blurred and rounded to integers again."""

    def __init__(self, scale: float, kernel: Tensor) -> None:
        super().__init__()
        self.scale, self.kernel = scale, nn.Buffer(kernel.expand(3, 1, -1, -1).clone())

    def forward(self, x: Tensor) -> Tensor:
        return (F.conv2d(x.float(), self.kernel, groups=3) * self.scale).to(torch.int32)


PICTURE = torch.randint(0, 256, (1, 3, 80, 80), dtype=torch.uint8)


@pytest.mark.slow
def test_integers_behind_a_rounding_are_kept(tmp_path: Path) -> None:
    """The file is written, every convolution in it as it was, and the report says why."""
    report = static(Levels(1000.0, window()), (PICTURE,), tmp_path / "o.onnx")
    assert lowered(report) == []
    assert report.equivalence.bitwise
    assert "sensitive to rounding" in report.plan.made["kept"]
    assert all("sensitive to rounding" in reason for reason in report.kept.values())


@pytest.mark.slow
def test_what_is_exact_is_lowered_behind_a_rounding(tmp_path: Path) -> None:
    """Integers under a binomial kernel have no rounding errors: nothing jumps."""
    line = torch.tensor([1.0, 4, 6, 4, 1]) / 16
    report = static(Levels(1.0, torch.outer(line, line)), (PICTURE,), tmp_path / "o.onnx")
    assert lowered(report)


@pytest.mark.slow
def test_a_threshold_that_rounding_turns_keeps_everything(tmp_path: Path) -> None:
    """Whether or not the files agree on this processor: the decision is read off the model in float64."""

    class Edges(Blur):
        def forward(self, x: Tensor) -> Tensor:
            y = super().forward(x)
            return torch.where(y > y.flatten()[100], 1.0, 0.0)

    report = static(Edges(), (torch.rand(1, 16, 60, 60),), tmp_path / "o.onnx")
    assert lowered(report) == []
    assert "sensitive to rounding" in report.plan.made["kept"]


@pytest.mark.slow
def test_a_threshold_that_no_output_shows_keeps_nothing(tmp_path: Path) -> None:
    """A leaky slope has a comparison in it, and no jump."""

    class Slope(Blur):
        def forward(self, x: Tensor) -> Tensor:
            y = super().forward(x - 0.5)
            return torch.where(y > 0, y, 0.1 * y)

    assert lowered(static(Slope(), (torch.rand(1, 16, 60, 60),), tmp_path / "o.onnx"))


def planted(path: Path, target: Path, tap: int, by: float) -> None:
    """A copy of a file, one tap of its only kernel off by ``by``."""
    model = onnx.load(path)
    (kernel,) = [i for i in model.graph.initializer if len(i.dims) == 4]
    array = numpy_helper.to_array(kernel).copy()
    array.reshape(-1)[tap] += by
    kernel.CopyFrom(numpy_helper.from_array(array, kernel.name))
    onnx.save(model, target)


@pytest.mark.slow
@pytest.mark.parametrize("reference", [True, False], ids=["float64", "no reference"])
@pytest.mark.parametrize("tap", [0, 60, 120])
def test_a_wrong_tap_is_found_behind_a_mean(reference: bool, tap: int, tmp_path: Path) -> None:
    """A ten-thousandth, in any tap, though the only output is one number."""
    a = torch.rand(1, 3, 80, 80)
    model, inputs = Metric().eval(), (a, a + 0.05 * torch.randn_like(a))
    files = tmp_path / "stock.onnx", tmp_path / "faulty.onnx"
    optimize(model, inputs, files[0], lowering="expand", seconds=0)
    planted(*files, tap, 1e-4)
    truth = float64_reference(model, inputs) if reference else None
    result = check_equivalence(*files, example_inputs=tensor_arrays(inputs), reference=truth)
    assert not result.passed
    assert result.sensitive is None
    planted(*files, tap, float(np.spacing(np.float32(0.01))))
    assert check_equivalence(*files, example_inputs=tensor_arrays(inputs), reference=truth).passed


@pytest.mark.slow
def test_a_site_that_is_wrong_is_an_error_behind_integers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kept is only what rounding explains: a wrong lowering is blamed on its site, and nothing is written."""
    from export.job import rewrite as second_stage

    def wrong(graph_module: Any, *args: Any) -> Any:
        done = lower_in_place(graph_module, *args)
        factors = [b for module in graph_module.children() for b in module.buffers() if b.is_floating_point()]
        assert factors
        for factor in factors:
            factor.mul_(1.01)
        return done

    monkeypatch.setattr(second_stage, "lower_in_place", wrong)
    with pytest.raises(NotEquivalentError, match="caused by site"):
        static(Levels(1.0, torch.ones(9, 9) / 64), (PICTURE,), tmp_path / "o.onnx")
    assert list(tmp_path.iterdir()) == []
