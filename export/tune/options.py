"""The requests of the caller for one optimization, as one record that every stage takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from export.runtime.target import USUAL, Target
from export.tune.stopwatch import Stopwatch
from fx_passes.errors import UsageError
from fx_passes.plan import Plan
from fx_passes.records import EXACTNESS, Exactness

LOWERINGS = ("tuned", "static", "expand")


@dataclass
class Timings:
    """Milliseconds of each candidate, by key of the site. Known times need not be measured again.

    Args:
        known: the times.
        save: called after each site that was timed.
    """

    known: dict[str, dict[str, float]] = field(default_factory=dict)
    save: Callable[[Timings], None] = lambda timings: None


@dataclass(frozen=True)
class Options:
    """How to choose and how to measure. ``optimize`` explains each argument; ``stopwatch`` takes the times.
    ``targets`` is one target with one or more numbers of threads. ``stamp``, ``keep_traces``: what the file
    tells of itself. ``details``: the report also has what a page for people shows
    (``export/report/details.py``).

    Raises:
        UsageError: there is no such lowering or exactness.
    """

    lowering: str = "tuned"
    exactness: Exactness = "finite"
    plan: Plan | None = None
    timings: Timings = field(default_factory=Timings)
    targets: tuple[Target, ...] = (USUAL,)
    budget: float = 60.0
    seconds: float = 10.0
    stopwatch: Stopwatch = field(default_factory=Stopwatch)
    stamp: bool = False
    keep_traces: bool = False
    details: bool = False

    def __post_init__(self) -> None:
        if self.lowering not in LOWERINGS:
            raise UsageError(f"lowering must be one of {', '.join(LOWERINGS)}, got {self.lowering!r}")
        if self.exactness not in EXACTNESS:
            raise UsageError(f"exactness must be one of {', '.join(EXACTNESS)}, got {self.exactness!r}")

    @property
    def target(self) -> Target:
        """Where the file will run, with the first number of threads."""
        return self.targets[0]

    @property
    def tunes(self) -> bool:
        """Whether the fastest lowering is searched for. Otherwise a plan or the rules decide."""
        return self.plan is None and self.lowering == "tuned"

    @property
    def chosen_by(self) -> str:
        """What decides, in the words of the report."""
        return self.lowering if self.plan is None else "plan"
