"""Is the file that this code writes slower than the one that another checkout of the code writes?

    git worktree add ../before COMMIT
    python benchmarks/against.py ../before --only blur11 ssim

For each graph of the speed benchmark, both checkouts write a file, each in a process of its own and tuned
with the same budget. Then the two files are timed in turn, in blocks of fresh sessions. The control is the
other file against itself. Above 1, this code is faster. ``slower`` is said only beyond the noise, and ends in
exit code 1.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
# Run in either checkout: the graph is built by this one.
WRITE = """
import sys
import torch
sys.path.append(sys.argv[1])
from more_graphs import ALL
import export
torch.manual_seed(0)
model, inputs = ALL[sys.argv[2]].build()
export.optimize(model.eval(), inputs, sys.argv[3], budget=float(sys.argv[4]), seconds=0)
"""


def write(checkout: Path, name: str, file: Path, budget: float) -> None:
    """Write the tuned file of a graph by the code in ``checkout``."""
    paths = os.pathsep.join([str(checkout), os.environ.get("PYTHONPATH", "")])
    arguments = [str(HERE / "benchmarks"), name, str(file), str(budget)]
    subprocess.run(
        [sys.executable, "-P", "-c", WRITE, *arguments],
        check=True,
        env={**os.environ, "PYTHONPATH": paths},
        stdout=subprocess.DEVNULL,
    )


def parsed() -> argparse.Namespace:
    from graphs import GRAPHS
    from more_graphs import ALL

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("other", type=Path, help="a checkout of the other code")
    parser.add_argument("--only", nargs="+", choices=ALL, default=list(GRAPHS), metavar="NAME")
    parser.add_argument("--budget", type=float, default=15.0, help="seconds of tuning for each file")
    parser.add_argument("--seconds", type=float, default=4.0, help="seconds of timing for each graph")
    return parser.parse_args()


def main() -> int:
    arguments = parsed()
    from more_graphs import ALL

    from export import measure_speed

    slower = 0
    print(
        "| graph | other, ms | this, ms | other / this | other against itself | |\n|---|---|---|---|---|---|"
    )
    for name in arguments.only:
        _, inputs = ALL[name].build()
        with tempfile.TemporaryDirectory() as folder:
            files = Path(folder, "other.onnx"), Path(folder, "this.onnx")
            for checkout, file in zip((arguments.other.resolve(), HERE), files, strict=True):
                write(checkout, name, file, arguments.budget)
            speed = measure_speed(*files, [x.numpy() for x in inputs], seconds=arguments.seconds)
        low, high = speed.ci95
        verdict = "slower" if speed.slower else "faster" if speed.faster else ""
        slower += speed.slower
        print(
            f"| {ALL[name].title} | {speed.baseline_ms:.3f} | {speed.optimized_ms:.3f} "
            f"| {speed.speedup:.3f}x [{low:.3f}, {high:.3f}] | {speed.control.value:.3f}x | {verdict} |",
            flush=True,
        )
    return int(slower > 0)


if __name__ == "__main__":
    sys.exit(main())
