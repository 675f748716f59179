"""Measures how fast a shared kernel trains, and whether the torch.compile backend is faster.

    python benchmarks/train.py --json FILE              both tables, one thread and then two
    python benchmarks/train.py --json FILE --quick      short
    python benchmarks/train.py --only train --threads 2

Training: forward, backward and step of ``formulation="auto"``. It is compared with a hand-written convolution
of an expanded kernel, and with torch's own module, in which every channel has its own kernel. Both also run
under torch.compile. The input needs its gradient, as inside a network. Every formulation is timed, so that a
wrong rule of ``auto`` becomes visible. Compile: the backend against plain torch.compile, for inference.

Everything runs in this process and in turn, in blocks. A cell holds the typical ratio to the hand-written
version (above 1: faster) and half of its 95 % interval, if there are enough blocks. The JSON also has the
times. A way that computes something else is an error.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

# OpenMP threads that spin after their work slow down the next measurement.
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"

import torch
import torch.nn.functional as F
from graphs import GRAPHS
from tables import HAND, as_json, timed_against, train_tables
from torch import Tensor, nn

from export.runtime.environment import environment
from export.runtime.target import Target
from fx_passes.compile_backend import fx_passes
from fx_passes.train.formulations import FORMULATIONS, formulation_refusal, static_formulation
from fx_passes.train.shared_conv import SharedKernelConv1d, SharedKernelConv2d

ROWS: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
    ((8, 3, 128, 128), (3, 3)),
    ((8, 64, 56, 56), (3, 3)),
    ((2, 3, 256, 256), (11, 11)),
    ((4, 64, 32, 32), (7, 7)),
    ((8, 256, 14, 14), (3, 3)),
    ((1, 3, 512, 512), (31, 31)),
    ((8, 64, 16000), (12,)),
]
GOAL_MEAN, GOAL_ROW, GOAL_COMPILE = 1.7, 0.95, 1.5


class ByHand(nn.Module):
    """The hand-written version: an expanded kernel in a grouped convolution."""

    def __init__(self, channels: int, kernel: tuple[int, ...]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(1, 1, *kernel))
        self.groups, self.padding = channels, tuple(size // 2 for size in kernel)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, *size) -> the same shape, padded by half a kernel."""
        conv = F.conv1d if x.ndim == 3 else F.conv2d
        weight = self.weight.expand(self.groups, *self.weight.shape[1:])
        return conv(x, weight, padding=self.padding, groups=self.groups)


def contestants(channels: int, kernel: tuple[int, ...]) -> dict[str, nn.Module]:
    """The modules of a row. The first is the one that all others are compared with."""
    arguments: dict[str, Any] = {
        "padding": tuple(size // 2 for size in kernel),
        "groups": channels,
        "bias": False,
    }
    shared: Any = SharedKernelConv1d if len(kernel) == 1 else SharedKernelConv2d
    plain: Any = nn.Conv1d if len(kernel) == 1 else nn.Conv2d
    found: dict[str, Any] = {HAND: ByHand(channels, kernel)}
    found["ours"] = shared(channels, channels, kernel, **arguments)
    found["torch module"] = plain(channels, channels, kernel, **arguments)
    found[f"{HAND}, compiled"] = ByHand(channels, kernel)
    found["torch module, compiled"] = plain(channels, channels, kernel, **arguments)
    for name in FORMULATIONS:
        if name not in ("auto", "separable") and not formulation_refusal(name, found["ours"]):
            found[name] = shared(channels, channels, kernel, formulation=name, **arguments)
    values = torch.randn(1, 1, *kernel, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for module in found.values():
            module.weight.copy_(values.expand_as(module.weight))
    return found


def step_of(name: str, module: nn.Module, x: Tensor, gradient: Tensor) -> Callable[[], Tensor]:
    """A function for forward, backward and step that returns the gradient of the one kernel."""
    forward: Any = torch.compile(module, dynamic=False) if "compiled" in name else module
    optimizer = torch.optim.SGD(module.parameters(), lr=0.0)
    weight: Any = module.weight
    x = x.clone().requires_grad_()

    def step() -> Tensor:
        optimizer.zero_grad()
        x.grad = None
        forward(x).backward(gradient)
        optimizer.step()
        return weight.grad.sum(0, keepdim=True)

    return step


def train_row(
    shape: tuple[int, ...], kernel: tuple[int, ...], threads: int, seconds: float
) -> dict[str, Any]:
    """Every contestant of a row against the first."""
    print(f"{shape}, {kernel}, {threads} thread(s)", file=sys.stderr, flush=True)
    torch.compiler.reset()
    modules = contestants(shape[1], kernel)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    gradient = torch.randn(modules[HAND](x).shape, generator=torch.Generator().manual_seed(2))
    steps = {name: step_of(name, module, x, gradient) for name, module in modules.items()}
    expected = steps[HAND]()
    columns = {}
    for name, step in steps.items():
        # The same sum in another order. It has as many products as the output has elements.
        difference = float((step() - expected).abs().max() / expected.abs().max())
        if not difference <= 1e-3:
            raise AssertionError(f"{name}: the gradient of the kernel is off by {difference:.2g}")
        if name != HAND:
            columns[name] = as_json(
                timed_against([lambda: steps[HAND], partial(lambda s: s, step)], threads, seconds)
            )
    auto = static_formulation(modules["ours"])  # type: ignore[arg-type]
    return {"shape": shape, "kernel": kernel, "threads": threads, "auto": auto, "columns": columns}


class Ssim(nn.Module):
    """The computation of the metric without its running sums, which would be compiled again at each call."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Two batches of images (N, C, H, W) -> their mean structural similarity."""
        from torchmetrics.functional.image import structural_similarity_index_measure

        return structural_similarity_index_measure(x, y, data_range=1.0)  # type: ignore[return-value]


def compile_rows(threads: int, seconds: float) -> list[dict[str, Any]]:
    """The backend against plain torch.compile."""
    found = []
    for name in ("blur11", "blur31", "ssim"):
        model, inputs = GRAPHS[name].build()
        model = Ssim() if name == "ssim" else model
        title = GRAPHS[name].title
        torch.compiler.reset()
        plain, ours = torch.compile(model), torch.compile(model, backend=fx_passes)
        with torch.no_grad():
            torch.testing.assert_close(ours(*inputs), plain(*inputs), rtol=1e-4, atol=1e-5)
            ways = [partial(partial, way, *inputs) for way in (plain, ours)]
            timing = timed_against(ways, threads, seconds)
        found.append({"title": title, "threads": threads, **as_json(timing)})
    return found


def keep_memory() -> None:
    """Let glibc keep freed memory. Otherwise getting and returning pages for each tensor would dominate some
    steps."""
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD
        libc.mallopt(-1, (1 << 31) - 1)  # M_TRIM_THRESHOLD


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--only", choices=["train", "compile"])
    parser.add_argument("--quick", action="store_true", help="a second for each pair, not ten")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    keep_memory()
    seconds = 1.0 if arguments.quick else 10.0
    result: dict[str, Any] = {
        "train": [],
        "compile": [],
        "environment": environment(Target(threads=arguments.threads[0])),
    }
    for threads in arguments.threads:
        torch.set_num_threads(threads)
        if arguments.only != "compile":
            result["train"] += [train_row(shape, kernel, threads, seconds) for shape, kernel in ROWS]
        if arguments.only != "train":
            result["compile"] += compile_rows(threads, seconds)
    print(train_tables(result["train"], result["compile"]))
    print(f"\nGoals: geometric mean {GOAL_MEAN}x, no row below {GOAL_ROW}x; the backend {GOAL_COMPILE}x.")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
