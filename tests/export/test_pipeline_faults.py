"""A rewrite, an export or a lowering is wrong: ``optimize`` finds it and names what caused it."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from two_blurs import Blurs, run

import fx_passes.graph.edit
from export.job import rewrite as second_stage
from export.write_onnx.exporter import to_onnx
from fx_passes.errors import NotEquivalentError
from fx_passes.kernels.expand import expand_kernel
from fx_passes.lowerings import MODULES

pytestmark = pytest.mark.usefixtures("simple_rules")


def plant(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the rewrite of the second site wrong."""
    expand_argument = fx_passes.graph.edit.expand_argument
    sites = []

    def faulty(conv: Any, *arguments: Any, **keywords: Any) -> Any:
        expanded = expand_argument(conv, *arguments, **keywords)
        sites.append(conv)
        if len(sites) != 2:
            return expanded
        if fault == "stride":
            conv.args = (*conv.args[:3], [2, 2], *conv.args[4:])
        elif fault == "padding":
            conv.args = (*conv.args[:4], [0, 0], *conv.args[5:])
        elif fault == "tap":
            with conv.graph.inserting_before(conv):
                kernel = expanded.args[0]
                tap = conv.graph.call_function(torch.ops.aten.slice.Tensor, (kernel, 3, 0, 1))
                rest = conv.graph.call_function(torch.ops.aten.slice.Tensor, (kernel, 3, 1, 3))
                tap = conv.graph.call_function(torch.ops.aten.mul.Scalar, (tap, 1.000001))
                kernel = conv.graph.call_function(torch.ops.aten.cat.default, ([tap, rest], 3))
                conv.update_arg(1, conv.graph.call_function(expand_kernel, (kernel, 4)))
        return expanded

    monkeypatch.setattr(fx_passes.graph.edit, "expand_argument", faulty)


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["stride", "padding", "tap"])
@pytest.mark.parametrize("existing", [True, False])
def test_a_faulty_rewrite_is_caught_and_its_site_named(
    fault: str, existing: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stride, the padding or one tap is wrong. So the file is not equivalent.

    No file is left, and an existing file stays as it was.
    """
    path = tmp_path / "out.onnx"
    if existing:
        path.write_text("before")
    plant(fault, monkeypatch)
    with pytest.raises(NotEquivalentError) as caught:
        run(Blurs(), path)
    message = str(caught.value)
    assert message.startswith("not equivalent: output `conv2d_2`")
    assert message.endswith("caused by site conv2d_2")
    if fault == "tap":
        assert "expected " in message
        assert "a tolerance of " in message
    else:
        assert "expected float32[1, 4, 12, 12], found float32[1, 4, " in message
    assert os.listdir(tmp_path) == (["out.onnx"] if existing else [])
    assert not existing or path.read_text() == "before"


@pytest.mark.slow
def test_a_fault_that_pytorch_does_not_see_blames_the_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file differs, but the graphs do not. So the export is to blame, and no site is."""

    def faulty(model: nn.Module, *arguments: Any, **keywords: Any) -> Path:
        path = to_onnx(model, *arguments, **keywords)
        stored = onnx.load(path)
        taps = next(i for i in stored.graph.initializer if i.name == "first")
        taps.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(taps) * 2, "first"))
        onnx.save(stored, path)
        return path

    monkeypatch.setattr(second_stage, "to_onnx", faulty)
    with pytest.raises(NotEquivalentError, match="no site differs in PyTorch: the export causes it"):
        run(Blurs(), tmp_path / "out.onnx")


def plant_in_lowering(monkeypatch: pytest.MonkeyPatch, name: str, taps: int, by: float) -> None:
    """Make one lowering wrong for kernels that have ``taps`` taps along the width."""
    module = MODULES[name].Module
    prepare = module.prepare

    def faulty(self: Any, kernel: Tensor) -> None:
        prepare(self, kernel * (1 + by) if kernel.shape[-1] == taps else kernel)

    monkeypatch.setattr(module, "prepare", faulty)


class Lowered(nn.Module):
    """Two blurs that the static rules lower."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Buffer(torch.rand(1, 1, 3, 3).repeat(3, 1, 1, 1) / 5)
        self.second = nn.Buffer(torch.rand(1, 1, 5, 5).repeat(3, 1, 1, 1) / 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv2d(x, self.first, padding=1, groups=3).sin()
        return F.conv2d(x, self.second, padding=2, groups=3)


IMAGE = torch.rand(1, 3, 32, 48)


@pytest.mark.slow
def test_a_faulty_lowering_is_caught_and_its_site_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first site is off by a thousandth. So the file is not equivalent, and none is left."""
    plant_in_lowering(monkeypatch, "polyphase", 3, 1e-3)
    with pytest.raises(NotEquivalentError) as caught:
        run(Lowered(), tmp_path / "out.onnx", (IMAGE,), lowering="static")
    assert str(caught.value).startswith("not equivalent: output `conv2d_1` at [0, ")
    assert str(caught.value).endswith("; caused by site conv2d")
    assert os.listdir(tmp_path) == []


@pytest.mark.slow
def test_a_lowering_that_is_less_exact_than_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lowering is ``finite`` but claims to be ``reordered``.

    The Inf and NaN among the inputs show that this is wrong.
    """
    polyphase = MODULES["polyphase"]
    propose = polyphase.propose

    def boasts(*arguments: Any) -> Any:
        return [replace(proposal, exactness="reordered") for proposal in propose(*arguments)]

    monkeypatch.setattr(polyphase, "propose", boasts)
    more = {"lowering": "static", "exactness": "reordered"}
    with pytest.raises(NotEquivalentError, match=r"\(non-finite, default .*; caused by site conv2d"):
        run(Lowered(), tmp_path / "out.onnx", (IMAGE,), **more)
