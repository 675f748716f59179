"""A convolution is found in every form that it can have in a graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from one_convolution import only, repeat_first_group
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.modules.conv import _ConvNd

from fx_passes.train.shared_conv import SHARED_CLASSES

SIZES = {1: (16,), 2: (12, 12), 3: (8, 8, 8)}


class Functional(nn.Module):
    """A convolution as a call of torch.nn.functional, with keyword arguments."""

    def __init__(self, conv: _ConvNd) -> None:
        super().__init__()
        self.weight, self.bias = conv.weight, conv.bias
        names = ["stride", "padding", "dilation", "groups"] + ["output_padding"] * conv.transposed
        self.arguments = {name: getattr(conv, name) for name in names}
        kind = "conv_transpose" if conv.transposed else "conv"
        self.function = getattr(F, f"{kind}{conv.weight.ndim - 2}d")

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, bias=self.bias, weight=self.weight, **self.arguments)


@pytest.mark.parametrize("cls", SHARED_CLASSES, ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("form", ["module", "functional", "aten", "convolution"])
def test_every_class_in_every_form(cls: type[Any], form: str) -> None:
    """The forms are modules, functional calls, ATen of torch.export, and aten.convolution after
    decomposition."""
    arguments = {"stride": 2, "padding": 1, "dilation": 2}
    if "Transpose" in cls.__name__:
        arguments["output_padding"] = 1
    conv = repeat_first_group(cls(4, 8, 3, groups=2, **arguments))
    x = torch.randn(2, 4, *SIZES[conv.weight.ndim - 2])
    models: dict[str, Callable[[], nn.Module | ExportedProgram]] = {
        "module": lambda: nn.Sequential(conv),
        "functional": lambda: Functional(conv),
        "aten": lambda: torch.export.export(conv, (x,)),
        "convolution": lambda: torch.export.export(conv, (x,)).run_decompositions(),
    }
    finding = only(models[form]())
    assert finding.shared, finding.reason
    geometry = finding.site.geometry
    assert finding.op == {"C": "conv", "T": "conv_transpose"}["T" if geometry.transposed else "C"] + (
        f"{geometry.dim}d"
    )
    assert finding.site.form == ("aten" if form == "convolution" else form)
    assert (finding.groups, geometry.in_channels, geometry.out_channels) == (2, 4, 8)
    dims = (1,) * geometry.dim
    assert geometry.kernel == tuple(3 * d for d in dims)
    assert geometry.stride == geometry.dilation == tuple(2 * d for d in dims)
    assert geometry.padding == dims
    assert geometry.output_padding == tuple(d * geometry.transposed for d in dims)
    assert finding.kernel_shape == (conv.weight.shape[0] // 2, *conv.weight.shape[1:])
    assert finding.kernel is not None
    assert finding.kernel.bias_shared
    assert finding.origin == "parameter"


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_string_padding(padding: Any) -> None:
    """A padding that is a string stays a string."""
    conv = repeat_first_group(nn.Conv2d(4, 4, 3, groups=4, padding=padding))
    exported = torch.export.export(conv, (torch.randn(1, 4, 8, 8),))
    models: list[nn.Module | ExportedProgram] = [nn.Sequential(conv), exported]
    for model in models:
        finding = only(model)
        assert finding.shared
        assert finding.site.geometry.padding in (padding, (0, 0))


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_padding_modes_of_modules(mode: Any) -> None:
    """The padding mode of a module is part of its geometry."""
    conv = repeat_first_group(nn.Conv2d(4, 4, 3, groups=4, padding=1, padding_mode=mode))
    assert only(nn.Sequential(conv)).site.geometry.padding_mode == mode


def test_make_fx_graph() -> None:
    """make_fx gives a graph of aten.convolution. Its weight is a lifted constant."""
    weight = torch.randn(1, 1, 3, 3).repeat(4, 1, 1, 1)
    graph_module = make_fx(lambda x: F.conv2d(x, weight, groups=4))(torch.randn(1, 4, 8, 8))
    assert only(graph_module).shared
