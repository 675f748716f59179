"""A command in a process of its own, so that it may crash: how it ended, and what it said."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

# The same modules, whatever the folder is.
_START = "import json, sys; sys.path[:] = json.loads(sys.argv.pop(1)); import export.cli.steps as s; s.main()"
_TOO_LONG = 124  # as the command `timeout` ends


@dataclass(frozen=True)
class Outcome:
    """The end of a command.

    Args:
        code: its exit code; minus the number of the signal that ended it.
        said: its error in one line.
    """

    code: int
    said: str = ""

    @property
    def passed(self) -> bool:
        return self.code == 0

    @property
    def too_long(self) -> bool:
        return self.code == _TOO_LONG

    @property
    def kind(self) -> str:
        """Equal for failures that are the same: the code and the first words, without names and numbers."""
        head = self.said.partition(": ")[0] if self.code == 1 else self.said
        words = re.sub(r"`[^`]*`|'[^']*'|\S*/\S*|\d+", "_", head)
        return f"{self.code} {words[:80]}"


def attempt(arguments: Sequence[object], *, first: str | None, limit: float) -> Outcome:
    """Run a command.

    Args:
        arguments: of ``fx-passes``, or of a step (``steps.py``).
        first: MODEL whose Python file is imported first: it may register what its graph needs.
        limit: seconds after which it is ended.
    """
    texts = [json.dumps(sys.path), first or "", *map(str, arguments)]
    command = [sys.executable, "-c", _START, *texts]
    try:
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=limit)
    except subprocess.TimeoutExpired:
        return Outcome(_TOO_LONG, f"it did not end within {limit:g} s")
    if done.returncode == 0:
        return Outcome(0)
    if done.returncode < 0:
        return Outcome(done.returncode, f"it crashed with {signal.Signals(-done.returncode).name}")
    lines = done.stderr.decode(errors="replace").strip().splitlines() or [""]
    ours = [line.removeprefix("fx-passes: ") for line in lines if line.startswith("fx-passes: ")]
    return Outcome(done.returncode, (ours or lines)[-1] or f"exit code {done.returncode}")
