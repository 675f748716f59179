"""Measures the time of finding and sharing, on a real vocoder and by the number of sites.

    python benchmarks/find_scaling.py            both tables
    python benchmarks/find_scaling.py --json F   and every sample as JSON

Expected before measuring: far below 10 % of torch.export on the vocoder, because both stages walk a few times
over a graph that export has built node by node. And twice the time for twice the sites.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fx_passes import ShareKernels
from fx_passes.capture.routes import capture
from fx_passes.find.find_kernels import judge_graph

TESTS = Path(__file__).parents[1] / "tests"
sys.path += [str(TESTS), str(TESTS / "support")]


class Chain(nn.Module):
    """``sites`` blurs in a row. The weight is in turn a parameter that holds the repeats, and a repeated
    buffer."""

    def __init__(self, sites: int, channels: int = 64) -> None:
        super().__init__()
        repeats = torch.rand(1, 1, 3, 3).repeat(channels, 1, 1, 1)
        self.weights = nn.ParameterList(nn.Parameter(repeats.clone()) for _ in range(sites // 2))
        self.kernels = nn.ParameterList(
            nn.Parameter(torch.rand(1, 1, 3, 3), requires_grad=False) for _ in range(sites - sites // 2)
        )

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        for weight in self.weights:
            x = F.conv2d(x, weight, padding=1, groups=channels)
        for kernel in self.kernels:
            x = F.conv2d(x, kernel.repeat(channels, 1, 1, 1), padding=1, groups=channels)
        return x


def seconds(function: Callable[[], Any], runs: int) -> list[float]:
    """Wall-clock seconds of ``runs`` calls. The garbage collector is off, as in ``timeit``."""
    samples = []
    for _ in range(runs):
        gc.collect()
        gc.disable()
        start = time.perf_counter()
        function()
        samples.append(time.perf_counter() - start)
        gc.enable()
    return samples


def vocoder(runs: int) -> dict[str, list[float]]:
    """Seconds of torch.export, of find, and of find + share, on the Qwen2.5-Omni BigVGAN of the tests."""
    import conftest  # noqa: F401  declares what torchvision needs to import
    import real_models

    model, inputs = real_models.vocoder()
    graph_module = capture(model, inputs).graph_module
    # The vocoder already expands its kernels. Here the repeats are written out, so that there is work to do.
    written_out = _write_out_repeats(model, inputs)
    return {
        "torch.export": seconds(lambda: torch.export.export(model, inputs), runs),
        "find": seconds(lambda: judge_graph(graph_module), runs),
        "find and share": seconds(lambda: ShareKernels()(graph_module), runs),
        "find and share, repeats written out": seconds(lambda: ShareKernels()(written_out), runs),
    }


def _write_out_repeats(model: nn.Module, inputs: tuple[Any, ...]) -> torch.fx.GraphModule:
    graph_module = capture(model, inputs).graph_module
    for node in list(graph_module.graph.nodes):
        if node.op == "call_function" and node.target is torch.ops.aten.expand.default:
            source, sizes = node.args
            node.target, node.args = torch.ops.aten.repeat.default, (source, [sizes[0], 1, 1])
    graph_module.recompile()
    return graph_module


def chains(sizes: list[int], runs: int) -> dict[int, list[float]]:
    """Seconds of find + share, by the number of sites."""
    result = {}
    for sites in sizes:
        graph_module = torch.export.export(Chain(sites), (torch.rand(1, 64, 8, 8),)).module(
            check_guards=False
        )
        found = ShareKernels()(graph_module)
        assert found is not None and found.modified
        result[sites] = seconds(partial(ShareKernels(), graph_module), runs)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    times = vocoder(arguments.runs)
    export_time = statistics.median(times["torch.export"])
    print("| Qwen2.5-Omni BigVGAN, 218 sites | median s | of torch.export |\n|---|---|---|")
    for stage, samples in times.items():
        middle = statistics.median(samples)
        print(f"| {stage} | {middle:.3f} | {middle / export_time:.1%} |")
    scaling = chains([100, 200, 400, 800], arguments.runs)
    print("\n| sites | find and share, median s | against half the sites |\n|---|---|---|")
    previous = None
    for sites, samples in scaling.items():
        middle = statistics.median(samples)
        print(f"| {sites} | {middle:.3f} | {f'{middle / previous:.2f}x' if previous else ''} |")
        previous = middle
    if arguments.json:
        arguments.json.write_text(json.dumps({"vocoder": times, "sites": scaling}, indent=2) + "\n")


if __name__ == "__main__":
    main()
