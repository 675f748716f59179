"""What the exporter's optimizer would take for 0 or 1 stays what it is, in our file and the stock export."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from export import optimize, to_onnx
from export.runtime.session import open_session, run
from export.write_onnx.exporter import stock_export

pytestmark = pytest.mark.usefixtures("simple_rules")

WAYS = {"ours": to_onnx, "stock": stock_export}
KEPT: dict[str, tuple[str, Callable[[Tensor], Tensor]]] = {
    "x + 1e-8": ("Add", lambda x: x + 1e-8),
    "1e-9 + x": ("Add", lambda x: 1e-9 + x),
    "x - 1e-8": ("Sub", lambda x: x - 1e-8),
    "x * 1.000005": ("Mul", lambda x: x * 1.000005),
    "x / 0.999995": ("Div", lambda x: x / 0.999995),
}
DROPPED: dict[str, Callable[[Tensor], Tensor]] = {
    "x + 0": lambda x: x + 0.0,
    "x * 1": lambda x: x * 1.0,
    "x / 1": lambda x: x / 1.0,
}


class Apply(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x).exp()


class Added(nn.Module):
    """A small number as a buffer, and one that is added to another buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.epsilon = nn.Buffer(torch.tensor(1e-8))
        self.scale = nn.Buffer(torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.epsilon) / (self.scale + 1e-8)


class Normalised(nn.Module):
    """A blur of what is divided by its length, as StyleGAN does."""

    def __init__(self) -> None:
        super().__init__()
        self.taps = nn.Buffer(torch.rand(1, 1, 9, 9).repeat(3, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = x * torch.rsqrt(x.square().sum(1, keepdim=True) + 1e-8)
        return nn.functional.conv2d(x, self.taps, groups=3)


def operators(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(path).graph.node]


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", KEPT)
def test_small_numbers_are_kept(name: str, way: str, tmp_path: Path) -> None:
    """The operator is there, its constant is no input, and the result is PyTorch's."""
    operator, function = KEPT[name]
    path = WAYS[way](Apply(function), (torch.rand(4),), tmp_path / "a.onnx")
    assert operators(path) == [operator, "Exp"]
    assert [slot.name for slot in onnx.load(path).graph.input] == ["x"]
    x = torch.tensor([0.0, 1e-8, 10.0, -7.0])
    (found,) = run(open_session(path, optimized=False), [x.numpy()])
    np.testing.assert_allclose(found, function(x).exp().numpy(), rtol=3e-7)


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", DROPPED)
def test_what_changes_nothing_is_dropped(name: str, way: str, tmp_path: Path) -> None:
    """As the exporter does."""
    path = WAYS[way](Apply(DROPPED[name]), (torch.rand(4),), tmp_path / "a.onnx")
    assert operators(path) == ["Exp"]


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_constants_are_folded_all_the_same(way: str, tmp_path: Path) -> None:
    """A sum of constants is one, to the last bit."""
    path = WAYS[way](Added(), (torch.zeros(4),), tmp_path / "a.onnx")
    assert operators(path) == ["Add", "Div"]
    (found,) = run(open_session(path), [np.zeros(4, np.float32)])
    assert found.tolist() == [1.0] * 4


@pytest.mark.slow
def test_a_lowered_model_divides_by_no_zero(tmp_path: Path) -> None:
    """Where nothing comes in, nothing comes out; and the site is lowered."""
    torch.manual_seed(0)
    report = optimize(
        Normalised(), (torch.rand(1, 3, 64, 64),), tmp_path / "a.onnx", lowering="static", seconds=0
    )
    assert report.output is not None
    (found,) = run(open_session(report.output), [np.zeros((1, 3, 64, 64), np.float32)])
    assert not found.any()
    assert [site["lowering"] for site in report.to_json()["sites"]] == ["polyphase(phases=16)"]
    assert report.equivalence.notes == ()
