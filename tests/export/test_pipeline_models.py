"""Models and inputs that ``optimize`` takes: programs, graph modules, nested inputs, open sizes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from two_blurs import Blurs, X, run

from export import optimize
from export.runtime.arrays import tensor_arrays, with_arrays

pytestmark = pytest.mark.usefixtures("simple_rules")


@pytest.mark.slow
def test_exported_program_and_graph_module(tmp_path: Path) -> None:
    """Both are taken as they are. A program brings its own inputs."""
    program = torch.export.export(Blurs().eval(), (X,))
    report = optimize(program, None, tmp_path / "a.onnx", seconds=0)
    assert report.route == "exported program"
    assert report.shared_count == 2
    traced = torch.fx.symbolic_trace(Blurs().eval())
    assert run(traced, tmp_path / "b.onnx").shared_count == 2


@pytest.mark.slow
def test_a_graph_module_is_not_changed(tmp_path: Path) -> None:
    """The graph module does not change, and neither does the model that it was traced from."""
    model = Blurs().eval()
    expected = model(X)
    traced = torch.fx.symbolic_trace(model)
    code = traced.code
    run(traced, tmp_path / "out.onnx")
    assert traced.code == code
    assert traced.first.shape == model.first.shape == (4, 1, 3, 3)
    assert torch.equal(traced(X), expected)
    assert torch.equal(model(X), expected)


@pytest.mark.slow
def test_dynamic_batch(tmp_path: Path) -> None:
    """The batch is open. So the check runs other batch sizes."""
    dynamic = ({0: torch.export.Dim("batch")},)
    report = run(Blurs(), tmp_path / "out.onnx", (X.repeat(2, 1, 1, 1),), dynamic_shapes=dynamic)
    assert report.equivalence.cases == 10
    assert report.equivalence.bitwise


@pytest.mark.slow
def test_open_sizes_of_an_exported_program_stay_open(tmp_path: Path) -> None:
    """A size that is open in the program is open in the file.

    The check runs other sizes.
    """
    dynamic = ({0: torch.export.Dim("batch"), 3: torch.export.Dim("width")},)
    program = torch.export.export(Blurs().eval(), (X.repeat(2, 1, 1, 1),), dynamic_shapes=dynamic)
    report = optimize(program, None, tmp_path / "out.onnx", seconds=0, lowering="expand")
    assert report.equivalence.bitwise
    assert report.equivalence.cases == 17


class Nested(nn.Module):
    """The arguments are a dict, a number and a list.

    The outputs are a tuple, and one of them is integer.
    """

    def __init__(self) -> None:
        super().__init__()
        self.window = nn.Buffer(torch.rand(1, 1, 3, 3).repeat(4, 1, 1, 1))

    def forward(self, images: dict[str, Tensor], scale: float, more: list[Tensor]) -> tuple[Tensor, Tensor]:
        x = images["a"] * scale + more[0]
        return F.conv2d(x, self.window, groups=4), x.argmax(1)


@pytest.mark.slow
def test_nested_inputs_and_outputs(tmp_path: Path) -> None:
    """Tensors are found wherever they are among the arguments."""
    inputs = ({"a": X}, 2.0, [X + 1])
    report = run(Nested(), tmp_path / "out.onnx", inputs)
    assert report.equivalence.bitwise
    assert len(report.equivalence.outputs) == 2
    arrays = tensor_arrays(inputs)
    assert len(arrays) == 2
    rebuilt = with_arrays(inputs, arrays)
    assert torch.equal(rebuilt[0]["a"], X)
    assert rebuilt[1] == 2.0
