"""Files for OpenVINO, with the real OpenVINO."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from command_line import run
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from export import measure_speed, optimize
from export.runtime.target import Target
from fx_passes.errors import ExportError

pytestmark = pytest.mark.slow
pytest.importorskip("openvino")
OPENVINO = Target("openvino", "CPU", 1)


def difference() -> onnx.ModelProto:
    """A model of ``a - b - w``, with an input between them that nothing reads; ``w`` is zeros."""
    value = helper.make_tensor_value_info
    inputs = [value(name, TensorProto.FLOAT, ["n", 2]) for name in ("b", "unused", "a")]
    nodes = [helper.make_node("Sub", ["a", "b"], ["d"]), helper.make_node("Sub", ["d", "w"], ["y"])]
    stored = numpy_helper.from_array(np.zeros((1, 2), np.float32), "w")
    graph = helper.make_graph(nodes, "g", inputs, [value("y", TensorProto.FLOAT, ["n", 2])], [stored])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


INPUTS = [np.full((3, 2), number, np.float32) for number in (1.0, 9.0, 5.0)]


def test_inputs_in_the_order_of_the_file(tmp_path: Path) -> None:
    """From a file, from bytes, and from bytes with weights beside them; one input is read by nothing."""
    model = difference()
    onnx.save(model, tmp_path / "model.onnx")
    opened = [OPENVINO.open(tmp_path / "model.onnx"), OPENVINO.open(bytes(model.SerializeToString()))]
    stored = tmp_path / "beside"
    stored.mkdir()
    onnx.save(model, stored / "model.onnx", save_as_external_data=True, size_threshold=0)
    beside = onnx.load(stored / "model.onnx", load_external_data=False)
    assert beside.graph.initializer[0].external_data
    before = sorted(stored.iterdir())
    opened.append(OPENVINO.open(bytes(beside.SerializeToString()), stored))
    assert sorted(stored.iterdir()) == before
    for one in opened:
        assert one.run(INPUTS)[0].tolist() == (INPUTS[2] - INPUTS[0]).tolist()
        assert one.prepared(INPUTS)()[0].tolist() == (INPUTS[2] - INPUTS[0]).tolist()


def test_outputs_are_kept() -> None:
    """The next run does not write over what a run returned."""
    opened = OPENVINO.open(bytes(difference().SerializeToString()))
    (first,) = opened.run(INPUTS)
    opened.run(INPUTS[::-1])
    assert first.tolist() == (INPUTS[2] - INPUTS[0]).tolist()


def test_what_it_refuses(tmp_path: Path) -> None:
    """One line: a file that is no model, an operator that it does not have, inputs that do not fit."""
    (tmp_path / "bad.onnx").write_bytes(b"rubbish")
    with pytest.raises(ExportError, match=r"openvino does not accept .*bad.onnx: Unable to read") as bad:
        OPENVINO.open(tmp_path / "bad.onnx")
    unknown = difference()
    unknown.graph.node[0].op_type = "Unheard"
    with pytest.raises(ExportError, match=r"a model in memory: .*Unheard") as other:
        OPENVINO.open(bytes(unknown.SerializeToString()))
    with pytest.raises(ExportError, match="openvino could not run the model: ") as third:
        OPENVINO.open(bytes(difference().SerializeToString())).run([np.ones((3, 5), np.float32)] * 3)
    assert not any("\n" in str(one.value) for one in (bad, other, third))


class Bilinear(nn.Module):
    """The up-sampler of FCN-8s, small."""

    def __init__(self) -> None:
        super().__init__()
        triangle = 1 - (torch.arange(8) + 0.5 - 4).abs() / 4
        self.conv = nn.ConvTranspose2d(5, 5, 8, stride=4, padding=2, groups=5, bias=False)
        self.conv.weight.data = torch.outer(triangle, triangle).expand(5, 1, 8, 8).contiguous()

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


@pytest.mark.parametrize("lowering", ["tuned", "static", "expand"])
def test_a_file_for_openvino(lowering: str, tmp_path: Path) -> None:
    """It is verified and measured there, and the JSON and the plan say so."""
    report = optimize(
        Bilinear().eval(),
        (torch.rand(1, 5, 16, 16),),
        tmp_path / "out.onnx",
        lowering=lowering,
        target="openvino",
        budget=5,
        seconds=2,
    )
    data = report.to_json()
    assert data["equivalence"]["passed"]
    assert data["equivalence"]["reference"].endswith("in onnxruntime and in openvino")
    assert (data["speed"]["target"], data["speed"]["provider"]) == ("openvino", "CPU")
    assert data["environment"]["target"] == "openvino"
    assert data["environment"]["runtime_version"] == data["speed"]["runtime_version"]
    assert "running the original in openvino" in data["seconds"]
    if lowering == "tuned":
        assert report.plan.made["environment"]["target"] == "openvino"


def test_from_the_command_line(tmp_path: Path) -> None:
    """``check`` compares there, and ``measure_speed`` times there."""
    onnx.save(difference(), tmp_path / "a.onnx")
    result = run("check", tmp_path / "a.onnx", tmp_path / "a.onnx", "--target", "openvino", "--json", "-")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["equivalence"]["reference"].endswith("in openvino")
    timing = measure_speed(
        tmp_path / "a.onnx", tmp_path / "a.onnx", INPUTS, target="openvino", threads=2, seconds=0
    )
    assert timing.target == Target("openvino", "CPU", 2)
