"""Models as people write them, through the whole job: lowered, right, and reported as such."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from export import optimize
from export.report.text import summary_lines
from export.runtime.session import open_session, run
from export.verify.equivalence import check_equivalence
from export.write_onnx.exporter import stock_export
from fx_passes import share_kernels, unshare_kernels

X = torch.rand(1, 3, 40, 40, generator=torch.Generator().manual_seed(0))


def gauss(size: int, sigma: float) -> Tensor:
    taps = torch.exp(-((torch.arange(size) - size // 2) ** 2) / (2 * sigma**2))
    return torch.outer(taps, taps) / taps.sum() ** 2


def laplacian_of_gaussian(size: int, sigma: float) -> Tensor:
    squares = (torch.arange(size) - size // 2) ** 2 / (2 * sigma**2)
    r = squares[:, None] + squares
    kernel = (1 - r) * torch.exp(-r)
    return kernel - kernel.mean()


class Filtered(nn.Module):
    """``use(blur, x)``: the filter by a kernel on every channel, and what is around it."""

    def __init__(self, use: Callable[..., Any], kernel: Tensor, channels: int = 3) -> None:
        super().__init__()
        self.use = use
        self.kernel = nn.Buffer(kernel[None, None].repeat(channels, 1, 1, 1))
        self.steps = nn.Buffer(torch.ones(()))

    def blur(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        pad = self.kernel.shape[-1] // 2
        x = F.pad(x, (pad, pad, pad, pad), mode="reflect")
        return F.conv2d(x, self.kernel, bias, groups=self.kernel.shape[0])

    def forward(self, *args: Any) -> Any:
        return self.use(self, *args)


def counted(m: Filtered, x: Tensor) -> Tensor:
    m.steps.add_(1)
    return m.blur(x) * m.steps


MODELS: dict[str, tuple[Callable[..., Any], Tensor, tuple[Any, ...]]] = {
    # Where the input is constant, all that these give is rounding.
    "what a blur takes away": (lambda m, x: x - m.blur(x), gauss(11, 2.0), (X,)),
    "a kernel of sum 0": (lambda m, x: m.blur(x), laplacian_of_gaussian(15, 2.0), (X,)),
    "local variance": (lambda m, x: m.blur(x * x) - m.blur(x) ** 2, gauss(11, 2.0), (X,)),
    "it overflows for large inputs": (lambda m, x: m.blur(x.exp()).log1p(), gauss(11, 2.0), (X,)),
    "it counts its calls": (counted, gauss(11, 2.0), (X,)),
    "a dict at the end": (lambda m, batch: m.blur(batch["image"]), gauss(11, 2.0), ({"image": X},)),
    "a bias of zeros like another tensor": (
        lambda m, img: m.blur(img.relu(), img.new_zeros(3)),
        gauss(11, 2.0),
        (X,),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "lowering"),
    [*((name, "static") for name in MODELS), ("a bias of zeros like another tensor", "tuned")],
)
def test_it_is_lowered(name: str, lowering: str, tmp_path: Path) -> None:
    """Nothing stands in the way: no site is kept for a reason that is not one."""
    use, kernel, inputs = MODELS[name]
    model = Filtered(use, kernel).eval()
    report = optimize(model, inputs, tmp_path / "out.onnx", lowering=lowering, budget=1, seconds=0)
    assert report.equivalence.passed
    assert not report.plan.made.get("failed")
    assert not any("rounding" in reason for reason in report.kept.values())
    if lowering == "static":
        assert all(choice.proposal is not None for choice in report.plan.choices.values())


@pytest.mark.slow
def test_a_case_that_overflows_is_noted(tmp_path: Path) -> None:
    """And only there: a file that has no numbers where the original has some is not the same."""
    use, kernel, inputs = MODELS["it overflows for large inputs"]
    report = optimize(
        Filtered(use, kernel).eval(), inputs, tmp_path / "out.onnx", lowering="static", seconds=0
    )
    assert any("large: output" in note and "not finite" in note for note in report.equivalence.notes)

    class Lost(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x - 1e3 * (x > 0.5)).sqrt()

    class Kept(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.abs().sqrt()

    for made, path in ((Kept(), "a.onnx"), (Lost(), "b.onnx")):
        stock_export(made, (X,), tmp_path / path)
    check = check_equivalence(
        tmp_path / "a.onnx", tmp_path / "b.onnx", example_inputs=[X.numpy()], finite_only=True
    )
    assert not check.passed


@pytest.mark.slow
def test_a_constant_input_still_finds_an_error(tmp_path: Path) -> None:
    """Rounding of the terms is allowed where they cancel, and no more."""

    kernel = laplacian_of_gaussian(15, 2.0)
    m = Filtered(lambda m, x: m.blur(x), kernel).eval()
    offset = Filtered(lambda m, x: m.blur(x, 1e-4 * (x == 0.5).all() * torch.ones(3)), kernel).eval()
    stock_export(m, (X,), tmp_path / "a.onnx")
    stock_export(offset, (X,), tmp_path / "b.onnx")
    check = check_equivalence(tmp_path / "a.onnx", tmp_path / "b.onnx", example_inputs=[X.numpy()])
    assert check.mismatch is not None
    assert check.mismatch.case == "constant"


@pytest.mark.slow
@pytest.mark.parametrize("lowering", ["expand", "static"])
def test_one_tensor_for_two_inputs(lowering: str, tmp_path: Path) -> None:
    """The exporter takes one object for one input, and the file computed a function of the first alone."""

    class Difference(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kernel = nn.Buffer(torch.rand(1, 1, 11, 11).repeat(3, 1, 1, 1))

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return F.conv2d(a - b, self.kernel, padding=5, groups=3)

    model, other = Difference().eval(), torch.rand(X.shape)
    optimize(model, (X, X), tmp_path / "out.onnx", lowering=lowering, seconds=0)
    [found] = run(open_session(tmp_path / "out.onnx"), [X.numpy(), other.numpy()])
    np.testing.assert_allclose(found, model(X, other).numpy(), atol=1e-4)


@pytest.mark.slow
def test_a_kernel_of_one_channel_alone_is_lowered_and_said_so(tmp_path: Path) -> None:
    """Sequences, every channel by itself: nothing to share, and still not the plain export."""

    class Sequences(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kernel = nn.Buffer(torch.rand(1, 1, 11))

        def forward(self, x: Tensor) -> Tensor:
            b, t, c = x.shape
            y = F.conv1d(x.transpose(1, 2).contiguous().view(b * c, 1, t), self.kernel, padding=5)
            return y.view(b, c, t).transpose(1, 2)

    report = optimize(
        Sequences(), (torch.rand(2, 2048, 4),), tmp_path / "out.onnx", lowering="static", seconds=0
    )
    assert [choice.proposal is None for choice in report.plan.choices.values()] == [False]
    assert not any("plain export" in line for line in summary_lines(report))


@pytest.mark.slow
def test_an_open_batch_from_an_example_of_one(tmp_path: Path) -> None:
    """The size that people give; torch.export alone would take it for a size that stays."""
    batch = torch.export.Dim("batch")

    class Branched(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kernel = nn.Buffer(gauss(11, 2.0).repeat(3, 1, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            x = x * 2 if x.shape[2] > 4 else x
            return F.conv2d(x, self.kernel, padding=5, groups=3)

    model = Branched()
    report = optimize(
        model, (X,), tmp_path / "out.onnx", lowering="static", dynamic_shapes=({0: batch},), seconds=0
    )
    assert report.route == "torch.export"
    assert [choice.proposal is None for choice in report.plan.choices.values()] == [False]
    for size in (1, 4):
        x = torch.rand(size, *X.shape[1:])
        [found] = run(open_session(tmp_path / "out.onnx"), [x.numpy()])
        np.testing.assert_allclose(found, model(x).numpy(), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["share", "share auto", "unshare", "symbolic_trace"])
def test_a_graph_module_is_lowered_as_the_model_is(way: str, tmp_path: Path) -> None:
    """What was trained is what is exported."""
    conv = nn.Conv2d(3, 3, 11, padding=5, groups=3)
    conv.weight.data = torch.rand(1, 1, 11, 11).repeat(3, 1, 1, 1)
    up = nn.ConvTranspose2d(3, 3, 4, stride=2, padding=1, groups=3)
    up.weight.data = torch.rand(1, 1, 4, 4).repeat(3, 1, 1, 1)
    model = nn.Sequential(conv, nn.ReLU(), up).eval()
    shared = share_kernels(model, formulation="auto" if way == "share auto" else "grouped")
    given = {"unshare": unshare_kernels(shared), "symbolic_trace": torch.fx.symbolic_trace(model)}.get(
        way, shared
    )
    report = optimize(given, (X,), tmp_path / "out.onnx", lowering="static", seconds=0)
    plain = optimize(model, (X,), tmp_path / "plain.onnx", lowering="static", seconds=0)
    lowered, expected = (
        [choice.proposal.name if choice.proposal else None for choice in r.plan.choices.values()]
        for r in (report, plain)
    )
    assert lowered == expected
    assert lowered[0] is not None
