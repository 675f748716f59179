"""What a page for people shows is gathered from the files, and only on request."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import GraphProto, TensorProto, helper
from torch import nn

import export
from export.job.details import _bytes, _kernel_of
from export.read_onnx.model import read_model
from export.read_onnx.nodes_between import Producers
from export.read_onnx.sites import analyse
from export.report.html import html_of
from export.runtime.profile import operator_times, times_in
from fx_passes.errors import ExportError


def blurred() -> tuple[nn.Sequential, tuple[torch.Tensor]]:
    """A blur of three channels behind a convolution whose groups differ."""
    first, blur = nn.Conv2d(3, 3, 3, groups=3), nn.Conv2d(3, 3, 11, groups=3, padding=5)
    line = torch.hann_window(13)[1:-1]
    blur.weight.data = torch.outer(line, line).repeat(3, 1, 1, 1)
    return nn.Sequential(first, blur).eval(), (torch.rand(1, 3, 66, 66),)


@pytest.mark.usefixtures("simple_rules")
def test_the_details_are_those_of_the_files(tmp_path: Path) -> None:
    """Kernels in full, the nodes before and after, errors within their bounds, all initializers."""
    model, inputs = blurred()
    file = tmp_path / "o.onnx"
    report = export.optimize(model, inputs, file, lowering="static", seconds=0, details=True)
    assert report.details is not None
    refused, lowered = (report.details.sites[one.id] for one in report.findings)
    assert refused.kernel is None
    assert lowered.kernel is not None
    np.testing.assert_array_equal(
        lowered.kernel[0, 0], model.get_parameter("1.weight").detach()[0, 0].numpy()
    )
    assert lowered.before == ("Conv",)
    written = onnx.load(file).graph
    names = [node.op_type for node in written.node]
    assert set(lowered.after) <= set(names)
    assert len(lowered.after) >= 2
    assert lowered.error is not None
    assert 0 < lowered.error.error <= lowered.error.allowed
    sizes = {one.name: onnx.numpy_helper.to_array(one).nbytes for one in written.initializer}
    assert report.details.after == sizes
    assert list(sizes.values()) != [0] * len(sizes)
    assert report.details.operators.why_not == "nothing was measured, as asked for (0 seconds)"


def test_a_kernel_that_is_stored_once(tmp_path: Path) -> None:
    """Its site has a kernel, and an Expand before the convolution; equal bits need no bound."""
    model, inputs = blurred()
    report = export.optimize(model, inputs, tmp_path / "o.onnx", lowering="expand", seconds=0, details=True)
    assert report.details is not None
    once = report.details.sites[report.findings[1].id]
    assert "Expand" in once.after
    assert "Conv" in once.after
    assert once.kernel is not None
    assert once.error is None


@pytest.mark.parametrize("columns", [1, 2])
def test_a_kernel_is_shown_in_one_order(columns: int, tmp_path: Path) -> None:
    """A transposed site that no lowering takes shows its kernel as the others do: as a correlation."""
    model = nn.ConvTranspose2d(2 * columns, 6, 3, groups=2, bias=False).eval()
    model.weight.data = torch.rand(columns, 3, 3, 3).repeat(2, 1, 1, 1)
    export.to_onnx(model, (torch.rand(1, 2 * columns, 8, 8),), tmp_path / "o.onnx")
    found = analyse(read_model(tmp_path / "o.onnx"))
    (site,), _ = found.sites()
    shown = _kernel_of(found.verdicts[0])
    assert shown is not None
    np.testing.assert_array_equal(shown, site.kernel.double().numpy())


@pytest.mark.usefixtures("simple_rules")
def test_a_profile_that_fails_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is written, and the page says why it has no times by operator."""

    def fails(*given: Any, **named: Any) -> dict[str, float]:
        raise ExportError("the profile of onnxruntime cannot be read: <disk>")

    monkeypatch.setattr("export.job.details.operator_times", fails)
    model, inputs = blurred()
    more: Any = {"lowering": "static", "seconds": 0.1}
    report = export.optimize(model, inputs, tmp_path / "o.onnx", details=True, **more)
    assert (tmp_path / "o.onnx").exists()
    assert "the profile of onnxruntime cannot be read: &lt;disk&gt;" in html_of(report)
    # Without details nothing is profiled at all.
    assert export.optimize(model, inputs, tmp_path / "p.onnx", **more).details is None


def test_times_of_operators(tmp_path: Path) -> None:
    """Every kind of operator that onnxruntime runs has a time; nothing is left behind."""
    model, inputs = blurred()
    export.to_onnx(model, inputs, tmp_path / "o.onnx")
    times = operator_times(tmp_path / "o.onnx", [inputs[0].numpy()])
    assert any("Conv" in name for name in times)
    assert all(ms > 0 for ms in times.values())
    assert list(times.values()) == sorted(times.values(), reverse=True)
    assert [one.name for one in tmp_path.iterdir()] == ["o.onnx"]


def test_the_first_run_of_a_profile_does_not_count() -> None:
    """It fills caches. Of the others, the typical one counts, summed over the nodes of one kind."""
    events = [{"name": "model_loading", "ts": 0, "dur": 9}]
    for number, scale in enumerate((1000, 2, 2, 2)):
        start = 1e6 * (number + 1)
        events.append({"name": "model_run", "ts": start, "dur": 100})
        for place, (kind, micros) in enumerate((("Pad", 50), ("Conv", 500), ("Conv", 250))):
            node = {"cat": "Node", "ts": start + place, "dur": micros * scale, "args": {"op_name": kind}}
            events += [{**node, "name": "n_kernel_time"}, {**node, "name": "n_fence_before"}]
    assert list(times_in(events).items()) == [("Conv", 1.5), ("Pad", 0.1)]
    with pytest.raises(ValueError, match="fewer than two runs"):
        times_in(events[:2])


def test_nodes_between_two_values() -> None:
    """What depends on the source and on constants; not what depends on another input only, or lies behind."""
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Constant", [], ["c"], value_int=1),
        helper.make_node("Expand", ["k", "c"], ["w"]),
        helper.make_node("Sqrt", ["other"], ["s"]),
        helper.make_node("Conv", ["a", "w"], ["b"]),
        helper.make_node("Mul", ["b", "s"], ["y"]),
        helper.make_node("Neg", ["y"], ["z"]),
    ]
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", "other")]
    graph: GraphProto = helper.make_graph(nodes, "g", inputs, [])
    graph.initializer.append(onnx.numpy_helper.from_array(np.ones(1, np.float32), "k"))
    producers = Producers(graph)
    assert producers.between("x", "y") == ("Relu", "Expand", "Conv", "Mul")
    assert producers.between("a", "y") == ("Expand", "Conv", "Mul")
    assert producers.between("y", "y") == ()


def test_bytes_of_every_type() -> None:
    """Also of texts, and of numbers that share a byte."""
    texts: Any = [b"abc", b"de"]
    tensors = [
        helper.make_tensor("texts", TensorProto.STRING, [2], texts),
        helper.make_tensor("numbers", TensorProto.INT64, [3], [1, 2, 3]),
        helper.make_tensor("halves", TensorProto.INT4, [4], [1, 2, 3, 4]),
    ]
    assert _bytes(GraphProto(initializer=tensors)) == {"numbers": 24, "texts": 5, "halves": 2}
