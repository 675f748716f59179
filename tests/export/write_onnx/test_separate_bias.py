"""A bias behind its convolution: the same bits, the same work at run time, and a file to be quantised."""

from __future__ import annotations

import copy
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_dynamic, quantize_static
from torch import Tensor, nn

from export import optimize, to_onnx
from export.runtime.session import open_session, run
from export.write_onnx.exporter import stock_export
from fx_passes import share_kernels


def repeated(conv: Any) -> Any:
    """A convolution whose groups repeat the first one, with a bias of its own for each channel."""
    rows = conv.weight.shape[0] // conv.groups
    with torch.no_grad():
        conv.weight.copy_(conv.weight[:rows].repeat(conv.groups, *[1] * (conv.weight.ndim - 1)))
        conv.bias.normal_()
    return conv


def depthwise(channels: int, taps: int, dim: int = 2, **options: Any) -> Any:
    return repeated(
        (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dim - 1](channels, channels, taps, groups=channels, **options)
    )


class SharedBias(nn.Module):
    """Two convolutions with one bias; what they compute, and the bias itself, are outputs as well."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = depthwise(8, 3), depthwise(8, 3)
        self.second.bias = self.first.bias

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        y = self.first(x)
        return y, self.second(y.relu()), self.first.bias * 2


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = depthwise(8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv(x) + x)


MODELS: dict[str, tuple[Any, tuple[int, ...]]] = {
    **{
        f"{channels} channels, {dim}d": (
            lambda c=channels, d=dim: nn.Sequential(depthwise(c, 3, d)),
            (2, channels, *[9, 11, 10][:dim]),
        )
        for channels in (3, 4, 8, 16, 64)
        for dim in (1, 2, 3)
    },
    "stride": (lambda: nn.Sequential(depthwise(8, 5, stride=2)), (1, 8, 17, 19)),
    "dilation": (lambda: nn.Sequential(depthwise(16, 3, dilation=2, padding=2)), (1, 16, 17, 19)),
    "one tap": (lambda: nn.Sequential(depthwise(4, 1)), (1, 4, 7, 9)),
    "blocks": (lambda: nn.Sequential(repeated(nn.Conv2d(64, 32, 3, groups=2))), (1, 64, 9, 9)),
    "relu": (lambda: nn.Sequential(depthwise(16, 3), nn.ReLU()), (1, 16, 9, 9)),
    "silu": (lambda: nn.Sequential(depthwise(3, 3), nn.SiLU()), (1, 3, 9, 9)),
    "two": (lambda: nn.Sequential(depthwise(8, 3), nn.ReLU(), depthwise(8, 3)), (1, 8, 12, 12)),
    "shared bias": (SharedBias, (1, 8, 12, 12)),
    "residual": (Residual, (1, 8, 12, 12)),
    "transposed": (
        lambda: nn.Sequential(repeated(nn.ConvTranspose2d(8, 8, 4, 2, groups=8))),
        (1, 8, 9, 9),
    ),
}


def exported(name: str, folder: Path) -> tuple[nn.Module, Tensor, Path, Path]:
    """The model, its input, the stock file and ours."""
    torch.manual_seed(0)
    make, shape = MODELS[name]
    model, x = make().eval(), torch.randn(shape)
    stock = stock_export(model, (x,), folder / "stock.onnx")
    ours = to_onnx(share_kernels(model, (x,)), (x,), folder / "ours.onnx")
    assert any(node.op_type == "Expand" for node in onnx.load(ours).graph.node)
    return model, x, stock, ours


def operators_at_run_time(path: Path) -> Counter[str]:
    """What onnxruntime runs, once its default optimizations are done."""
    options, optimized = ort.SessionOptions(), path.with_suffix(".optimized.onnx")
    options.optimized_model_filepath, options.log_severity_level = str(optimized), 4
    ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(optimized).graph.node)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_the_bits_and_the_work_are_those_of_the_stock_export(name: str, tmp_path: Path) -> None:
    """At both optimization levels; and onnxruntime's own joins the bias again."""
    _, x, stock, ours = exported(name, tmp_path)
    biased = [n for n in onnx.load(ours).graph.node if n.op_type == "Conv" and len(n.input) == 3]
    assert not biased
    for optimized in (True, False):
        sessions = [open_session(path, optimized=optimized) for path in (stock, ours)]
        for scale in (1.0, 1e3, 1e-3):
            expected, found = (run(session, [(x * scale).numpy()]) for session in sessions)
            assert [a.tobytes() for a in expected] == [a.tobytes() for a in found]
    assert operators_at_run_time(ours) == operators_at_run_time(stock)


@pytest.mark.slow
def test_each_bias_is_stored_once_under_its_name(tmp_path: Path) -> None:
    """Also where two convolutions have one; what else reads it has it in its own shape."""
    ours = exported("shared bias", tmp_path)[-1]
    stored = {i.name: list(i.dims) for i in onnx.load(ours).graph.initializer}
    assert sorted(size for size in stored.values() if size == [8, 1, 1]) == [[8, 1, 1]]
    two = {i.name: list(i.dims) for i in onnx.load(exported("two", tmp_path)[-1]).graph.initializer}
    assert {name: two.get(name) for name in ("0.bias", "2.bias")} == {
        "0.bias": [8, 1, 1],
        "2.bias": [8, 1, 1],
    }


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_only_a_bias_in_float32_is_taken_out(dtype: torch.dtype, tmp_path: Path) -> None:
    """In a shorter type, what is in front of the bias would be rounded once more."""
    conv = nn.Sequential(depthwise(4, 3)).eval().to(dtype)
    x = torch.randn(1, 4, 8, 8, dtype=dtype)
    ours = onnx.load(to_onnx(share_kernels(conv, (x,)), (x,), tmp_path / "ours.onnx"))
    assert [len(n.input) for n in ours.graph.node if n.op_type == "Conv"] == [3]


class Samples(CalibrationDataReader):
    """One sample of the input."""

    def __init__(self, name: str, x: Tensor) -> None:
        self.left = [{name: x.numpy()}]

    def get_next(self) -> dict[str, np.ndarray] | None:
        return self.left.pop() if self.left else None


def quantised_error(path: Path, how: str, x: Tensor, expected: Tensor) -> float:
    """How far the quantised file is from the model, as a part of the largest output."""
    name, quantised = onnx.load(path).graph.input[0].name, path.with_suffix(f".{how}.onnx")
    if how == "dynamic":
        quantize_dynamic(path, quantised)
    else:
        form = QuantFormat.QDQ if how == "QDQ" else QuantFormat.QOperator
        # Of 8 bits each, sums of two products overflow in processors without the operator for it.
        quantize_static(path, quantised, Samples(name, x), quant_format=form, reduce_range=True)
    session = ort.InferenceSession(str(quantised), providers=["CPUExecutionProvider"])
    found = session.run(None, {name: x.numpy()})[0]
    return float(np.abs(found - expected.numpy()).max() / expected.abs().max())


@pytest.mark.slow
@pytest.mark.parametrize("how", ["dynamic", "QDQ", "QOperator"])
@pytest.mark.parametrize(
    "name", ["3 channels, 1d", "16 channels, 2d", "two", "relu", "residual", "transposed"]
)
def test_our_files_can_be_quantised(name: str, how: str, tmp_path: Path) -> None:
    """By onnxruntime's own tools, with an error of a few steps of 7 bits."""
    model, x, _, ours = exported(name, tmp_path)
    assert quantised_error(ours, how, x, model(x).detach()) < 8 / 128


@pytest.mark.slow
@pytest.mark.parametrize("lowering", ["expand", "static", "tuned"])
@pytest.mark.parametrize("bias", [True, False])
def test_whatever_the_lowering(lowering: str, bias: bool, tmp_path: Path) -> None:
    """What ``optimize`` writes can be quantised, with a bias or without."""
    torch.manual_seed(0)
    conv = depthwise(3, 9, padding=4)
    conv.bias = conv.bias if bias else None
    x = torch.randn(1, 3, 96, 96)
    model = nn.Sequential(conv).eval()
    report = optimize(copy.deepcopy(model), (x,), tmp_path / "m.onnx", lowering=lowering, seconds=0, budget=3)
    assert report.rewritten
    for how in ("dynamic", "QDQ", "QOperator"):
        assert quantised_error(tmp_path / "m.onnx", how, x, model(x).detach()) < 8 / 128, how
