"""Fine-tune an anti-aliased CNN whose blur kernels are shared, then export and verify it.

    python examples/fine_tune.py [--steps N] [--out FILE.onnx]

The model is written in the usual way: each blur pool is a grouped convolution that repeats a binomial kernel
for every channel. In normal training the copies would drift apart. After sharing, each blur is one kernel
that all channels train together. The data are synthetic textures: stripes in one of eight directions, of any
width and phase, in noise. The model predicts the direction.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import export
import fx_passes

DIRECTIONS, SIZE = 8, 32


def blur_pool(channels: int) -> nn.Conv2d:
    """A binomial 4x4 blur of stride 2, the same for every channel: (N, channels, H, W) -> half the size."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    pool = nn.Conv2d(channels, channels, 4, stride=2, padding=1, groups=channels, bias=False)
    pool.weight.data = torch.outer(taps, taps).repeat(channels, 1, 1, 1)
    return pool


def make_model() -> nn.Module:
    """(N, 1, 32, 32) -> (N, 8) logits."""
    layers: list[nn.Module] = []
    for inputs, outputs in ((1, 16), (16, 32)):
        layers += [nn.Conv2d(inputs, outputs, 5, padding=2), nn.BatchNorm2d(outputs), nn.ReLU()]
        layers += [blur_pool(outputs)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, DIRECTIONS))


def textures(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Images (count, 1, 32, 32) with values around 0, and their directions (count,), int64."""
    label = torch.randint(DIRECTIONS, (count,), generator=generator)
    angle = label * (math.pi / DIRECTIONS)
    width, phase = torch.rand(2, count, 1, 1, generator=generator).unbind()
    place = torch.arange(SIZE) - SIZE / 2
    along = torch.cos(angle)[:, None, None] * place + torch.sin(angle)[:, None, None] * place[:, None]
    image = torch.sin(along * (0.6 + 0.9 * width) + 2 * math.pi * phase)
    return (image + torch.randn(image.shape, generator=generator)).unsqueeze(1), label


def accuracy(model: nn.Module, generator: torch.Generator) -> float:
    x, label = textures(512, generator)
    with torch.no_grad():
        return float((model(x).argmax(1) == label).float().mean())


def train(model: nn.Module, steps: int) -> list[float]:
    """The loss of every step."""
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(steps):
        x, label = textures(64, generator)
        loss = F.cross_entropy(model(x), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--out", type=Path, default=Path("textures.onnx"))
    arguments = parser.parse_args()
    torch.manual_seed(0)

    model = fx_passes.share_kernels(make_model().train(), formulation="auto")
    for name, parameter in model.named_parameters():
        if parameter.shape[:2] == (1, 1):
            print(f"{name}: one kernel {tuple(parameter.shape[2:])} for all channels")

    losses = train(model, arguments.steps)
    tenth = max(1, len(losses) // 10)
    first, last = sum(losses[:tenth]) / tenth, sum(losses[-tenth:]) / tenth
    print(f"loss {first:.3f} -> {last:.3f} in {len(losses)} steps")

    model.eval()
    generator = torch.Generator().manual_seed(1)
    print(f"accuracy {accuracy(model, generator):.0%} on new textures (by chance: {1 / DIRECTIONS:.0%})")
    print("learned blur, before it was binomial:")
    print((model.get_parameter("3.weight")[0, 0] * 64).detach().round(decimals=1))

    x, _ = textures(8, generator)
    report = export.optimize(model, (x,), arguments.out, lowering="static", seconds=1)
    assert report.speed is not None
    print(f"{arguments.out}: equivalent in onnxruntime, {report.speed.speedup:.2f}x the stock export")


if __name__ == "__main__":
    main()
