"""A rewrite or a lowering is wrong: ``optimize`` finds it and names what caused it."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from onnx import NodeProto
from torch import Tensor, nn
from two_blurs import Blurs, run

from export.write_onnx import kernels_once
from export.write_onnx.kernels_once import Repeated
from fx_passes.errors import ExportError, NotEquivalentError
from fx_passes.lowerings import MODULES

pytestmark = pytest.mark.usefixtures("simple_rules")


def plant(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the rewrite of the second site wrong."""
    with_weight, expansion = kernels_once._with_weight, kernels_once._expansion

    def faulty(conv: NodeProto, *arguments: Any) -> list[NodeProto]:
        nodes = with_weight(conv, *arguments)
        if conv.output[0] == "conv2d_2" and fault != "tap":
            name, numbers = {"stride": ("strides", [2, 2]), "padding": ("pads", [0, 0, 0, 0])}[fault]
            for attribute in nodes[0].attribute:
                if attribute.name == name:
                    attribute.ints[:] = numbers
        return nodes

    def wrong(weight: str, site: Repeated, *arguments: Any, **keywords: Any) -> Any:
        values = site.values.copy()
        values[..., 0] *= np.float32(1.000001)
        changed = replace(site, values=values) if site.output == "conv2d_2" and fault == "tap" else site
        return expansion(weight, changed, *arguments, **keywords)

    monkeypatch.setattr(kernels_once, "_with_weight", faulty)
    monkeypatch.setattr(kernels_once, "_expansion", wrong)


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["stride", "padding", "tap"])
@pytest.mark.parametrize("existing", [True, False])
def test_a_faulty_rewrite_is_caught_and_its_site_named(
    fault: str, existing: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stride, the padding or one tap is wrong. So the file is not valid, or not equivalent.

    No file is left, and an existing file stays as it was.
    """
    path = tmp_path / "out.onnx"
    if existing:
        path.write_text("before")
    plant(fault, monkeypatch)
    with pytest.raises(NotEquivalentError if fault == "tap" else ExportError) as caught:
        run(Blurs(), path)
    message = str(caught.value)
    if fault == "tap":
        assert message.startswith("not equivalent: output `conv2d_2`")
        assert message.endswith("caused by site conv2d_2")
        assert "expected " in message
        assert "a tolerance of " in message
    else:  # the file states the shape
        assert message.startswith("onnx.checker refuses the rewritten model: ")
    assert os.listdir(tmp_path) == (["out.onnx"] if existing else [])
    assert not existing or path.read_text() == "before"


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
