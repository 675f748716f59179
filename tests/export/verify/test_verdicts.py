"""A verdict depends on what rounding can do to an output. It does not depend on the error by chance."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from gaussian import lowered, static, window
from onnx import numpy_helper
from torch import Tensor, nn

from export import optimize
from export.runtime.arrays import tensor_arrays
from export.verify.equivalence import check_equivalence
from export.verify.reference import float64_reference

pytestmark = pytest.mark.usefixtures("simple_rules")


class Metric(nn.Module):
    """The mean of a ratio of local moments: one number from as many windows as there are pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Buffer(window()[None, None].repeat(3, 1, 1, 1))

    def blur(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.kernel, groups=3)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        mean = self.blur(a) * self.blur(b)
        return ((self.blur(a * b) - mean) / (self.blur(a * a) - self.blur(a) ** 2 + 1e-3)).mean()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_one_number_as_output_is_lowered(seed: int, tmp_path: Path) -> None:
    """The error of one number may be zero by chance. The verdict looks at how far rounding can move it.

    Of five blurs, two are of one image: the exporter computes them once.
    """
    torch.manual_seed(seed)
    a = torch.rand(1, 3, 80, 80)
    report = static(Metric(), (a, a + 0.05 * torch.randn_like(a)), tmp_path / "o.onnx")
    assert len(lowered(report)) == 4


@pytest.mark.slow
@pytest.mark.parametrize("name", ["visual_information_fidelity", "spatial_correlation_coefficient"])
def test_metrics_of_a_package_are_lowered(name: str, tmp_path: Path) -> None:
    """Metrics of torchmetrics have a window for each channel."""
    from torchmetrics.functional import image

    metric = getattr(image, name)

    class Of(nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return metric(a, b)

    a = torch.rand(1, 1, 96, 96)
    report = static(Of(), (a, a + 0.05 * torch.randn_like(a)), tmp_path / "o.onnx")
    assert lowered(report)


def planted(path: Path, target: Path, tap: int, by: float) -> None:
    """Write a copy of a file in which one tap of the only kernel is off by ``by``."""
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
    """A tap is off by a ten-thousandth. It is found though the only output is one number."""
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
