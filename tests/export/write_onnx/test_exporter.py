"""ONNX files: one initializer a kernel, all or nothing on disk."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from export import to_onnx
from export.runtime import files
from export.runtime.session import open_session, run
from export.write_onnx.exporter import stock_export
from fx_passes import share_kernels
from fx_passes.errors import ExportError
from fx_passes.train.shared_conv import SHARED_CLASSES


def initializers(path: Path) -> dict[str, tuple[int, ...]]:
    return {i.name: tuple(i.dims) for i in onnx.load(path).graph.initializer}


def float_bytes(path: Path) -> int:
    """Bytes of all floating-point initializers."""
    stored = onnx.load(path).graph.initializer
    return sum(onnx.numpy_helper.to_array(i).nbytes for i in stored if i.data_type == onnx.TensorProto.FLOAT)


class Functional(nn.Module):
    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.taps = nn.Buffer(weight)
        self.offset = None if bias is None else nn.Parameter(bias)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.taps, self.offset, padding=1, groups=8)


def module_model() -> nn.Sequential:
    conv = nn.Conv2d(8, 8, 3, groups=8, padding=1)
    conv.weight.data = torch.randn(1, 1, 3, 3).repeat(8, 1, 1, 1)
    conv.get_parameter("bias").data = torch.randn(1).repeat(8)
    return nn.Sequential(conv)


def blocks_model() -> nn.Module:
    conv = nn.ConvTranspose2d(8, 16, 4, groups=4, stride=2, bias=False)
    conv.weight.data = torch.randn(2, 4, 4, 4).repeat(4, 1, 1, 1)
    return nn.Sequential(conv)


def dense_model() -> nn.Module:
    conv = nn.Conv2d(8, 8, 3, bias=False)
    conv.weight.data.zero_()
    conv.weight.data[range(8), range(8)] = torch.randn(3, 3)
    return nn.Sequential(conv)


CASES: dict[str, tuple[Callable[[], nn.Module], dict[str, tuple[int, ...]], int]] = {
    # model, the kernel initializers, and the bytes of all floats in the file
    "module": (module_model, {"0.weight": (1, 1, 3, 3), "0.bias": (8, 1, 1)}, 36 + 32),
    "functional": (
        lambda: Functional(torch.randn(1, 1, 3, 3).repeat(8, 1, 1, 1), torch.randn(1).repeat(8)),
        {"taps": (1, 1, 3, 3), "offset": (8, 1, 1)},
        36 + 32,
    ),
    "bias per channel": (
        lambda: Functional(torch.randn(1, 1, 3, 3).repeat(8, 1, 1, 1), torch.randn(8)),
        {"taps": (1, 1, 3, 3), "offset": (8, 1, 1)},
        36 + 32,
    ),
    "blocks, transposed": (blocks_model, {"0.weight": (2, 4, 4, 4)}, 512),
    "dense": (dense_model, {"0.weight": (1, 1, 1, 1, 3, 3)}, 36),
}


@pytest.mark.slow
@pytest.mark.parametrize("route", ["nn.Module", "exported program"])
@pytest.mark.parametrize("name", CASES)
def test_each_kernel_is_stored_once_under_its_name(name: str, route: str, tmp_path: Path) -> None:
    """Initializers are counted in bytes, so that an exporter that undoes the sharing is caught."""
    build, expected, size = CASES[name]
    model, x = build().eval(), torch.randn(1, 8, 12, 12)
    given = model if route == "nn.Module" else torch.export.export(model, (x,))
    path = to_onnx(share_kernels(given), (x,), tmp_path / "shared.onnx")
    stored = initializers(path)
    assert {name: stored.get(name) for name in expected} == expected
    zeros = 4 * (model[0].out_channels if isinstance(model, nn.Sequential) and model[0].bias is None else 0)
    assert float_bytes(path) - size in (0, zeros)
    stock = stock_export(model, (x,), tmp_path / "stock.onnx")
    assert float_bytes(stock) > float_bytes(path)
    for optimized in (True, False):
        a, b = (run(open_session(p, optimized=optimized), [x.numpy()]) for p in (stock, path))
        assert a[0].tobytes() == b[0].tobytes()


def test_the_plain_exporter_would_undo_the_sharing(tmp_path: Path) -> None:
    """Why ``to_onnx`` exists: the stock export of the shared model stores the repeats again."""
    x = torch.randn(1, 8, 12, 12)
    path = stock_export(share_kernels(module_model()).eval(), (x,), tmp_path / "stock.onnx")
    assert (8, 1, 3, 3) in initializers(path).values()


@pytest.mark.slow
@pytest.mark.parametrize("cls", SHARED_CLASSES.values(), ids=lambda cls: cls.__name__)
def test_every_shared_class_exports(cls: type[Any], tmp_path: Path) -> None:
    """All six classes, read back by onnxruntime, agree with PyTorch."""
    conv = cls(4, 4, 3, stride=2, groups=4).eval()
    x = torch.randn(1, 4, *[9, 9, 9][: conv.weight.ndim - 2])
    path = to_onnx(conv, (x,), tmp_path / "conv.onnx")
    assert initializers(path)["weight"] == tuple(conv.weight.shape)
    (found,) = run(open_session(path), [x.numpy()])
    np.testing.assert_allclose(found, conv(x).detach().numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_the_rest_is_as_optimized_as_the_stock_export(tmp_path: Path) -> None:
    """Batch norms are folded into convolutions as they are in the stock file; one bias is behind its own."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), *module_model()).eval()
    x = torch.randn(1, 3, 12, 12)
    ours = onnx.load(to_onnx(share_kernels(model), (x,), tmp_path / "a.onnx"))
    stock = onnx.load(stock_export(model, (x,), tmp_path / "b.onnx"))
    ops = [node.op_type for node in ours.graph.node]
    assert sorted(ops) == sorted(["Add", "Expand", *(n.op_type for n in stock.graph.node)])


@pytest.mark.slow
def test_dynamic_batch(tmp_path: Path) -> None:
    """An open batch stays open."""
    x = torch.randn(2, 8, 12, 12)
    dynamic = ({0: torch.export.Dim("batch")},)
    path = to_onnx(share_kernels(module_model()).eval(), (x,), tmp_path / "d.onnx", dynamic_shapes=dynamic)
    session = open_session(path)
    assert session.get_inputs()[0].shape[0] == "batch"
    assert run(session, [torch.randn(5, 8, 12, 12).numpy()])[0].shape == (5, 8, 12, 12)


@pytest.mark.slow
def test_large_models_have_their_data_beside_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Above the size of a protobuf message, initializers go to a second file, also moved into place."""
    monkeypatch.setattr(files, "LARGE_BYTES", 10)
    x = torch.randn(1, 8, 12, 12)
    path = to_onnx(share_kernels(module_model()).eval(), (x,), tmp_path / "big.onnx")
    assert sorted(os.listdir(tmp_path)) == ["big.onnx", "big.onnx.data"]
    assert run(open_session(path), [x.numpy()])[0].shape == (1, 8, 12, 12)


def test_nothing_half_written_when_the_checker_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An invalid model leaves an existing file as it was, and no temporary file."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise onnx.checker.ValidationError("planted\nsecond line")

    target = tmp_path / "out.onnx"
    target.write_text("before")
    monkeypatch.setattr(onnx.checker, "check_model", refuse)
    with pytest.raises(ExportError, match=r"onnx.checker refuses the exported model: planted$"):
        to_onnx(module_model().eval(), (torch.randn(1, 8, 12, 12),), target)
    assert os.listdir(tmp_path) == ["out.onnx"]
    assert target.read_text() == "before"


@pytest.mark.slow
def test_a_model_that_cannot_be_exported_is_one_line(tmp_path: Path) -> None:
    """The cause, not the exporter's page of advice."""

    class Looks(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + 1 if x.sum() > 0 else x

    with pytest.raises(ExportError) as failed:
        to_onnx(Looks(), (torch.ones(2),), tmp_path / "x.onnx")
    assert str(failed.value).startswith("torch.onnx.export failed: ")
    assert "\n" not in str(failed.value)
    assert os.listdir(tmp_path) == []


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    """The message names the file that could not be written."""
    with pytest.raises(ExportError, match=r"cannot write .*missing/out.onnx"):
        to_onnx(module_model().eval(), (torch.randn(1, 8, 12, 12),), tmp_path / "missing" / "out.onnx")
