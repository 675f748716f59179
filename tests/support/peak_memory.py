"""How much memory code takes, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys

# ``ru_maxrss`` would not do: a new process begins with what the process that started it had at most.
_PEAK = """
def peak():
    [line] = [line for line in open("/proc/self/status") if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024
"""


def peaks(*parts: str, arguments: tuple[str, ...] = ()) -> list[int]:
    """Bytes in memory at most, up to the end of each part of a program. Mapped files count."""
    code = [_PEAK, *(f"{part}\nprint('peak', peak())" for part in parts)]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", "\n".join(code), *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    lines = (line.split() for line in done.stdout.splitlines())
    return [int(line[1]) for line in lines if line[:1] == ["peak"]]
