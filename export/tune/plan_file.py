"""Plans as files: what was decided, or what an interrupted tuning has timed so far."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from export.report.whole_file import write_whole
from export.runtime.environment import environment
from export.runtime.target import Target
from export.tune.options import Timings
from fx_passes.errors import UsageError
from fx_passes.plan import Plan


def read_plan(file: Path) -> Plan:
    """The plan in ``file``.

    Raises:
        UsageError: it is no plan, or that of an interrupted tuning.
    """
    plan = _read(file)
    if not plan.made.get("complete", True):
        raise UsageError(f"{file}: the tuning was interrupted; run it again with --save-plan {file}")
    return plan


def write_plan(plan: Plan, file: Path) -> None:
    """Write ``plan`` to ``file``, completely or not at all.

    Raises:
        ExportError: the file cannot be written.
    """
    write_whole(file, plan.to_json())


def resume(file: Path, *targets: Target) -> Timings:
    """Timings that continue those in ``file``, if they were taken on this machine and for these
    targets. New ones are saved there.

    A finished plan is not overwritten before there is another one.

    Raises:
        UsageError: ``file`` exists, but holds no plan, and would be overwritten.
    """
    here = environment(*targets)
    plan = _read(file) if file.exists() else None
    if plan is not None and plan.made.get("complete", True):
        return Timings()

    def save(timings: Timings) -> None:
        write_plan(Plan({}, _made(timings.known, here)), file)

    go_on = plan is not None and plan.made.get("environment") == here
    return Timings(_timings(plan, file) if plan is not None and go_on else {}, save)


def _timings(plan: Plan, file: Path) -> dict[str, dict[str, float]]:
    try:
        return {
            key: {n: float(ms) for n, ms in site.items()} for key, site in plan.made["timings_ms"].items()
        }
    except (KeyError, AttributeError, TypeError, ValueError) as error:
        raise UsageError(f"{file}: its timings cannot be read; remove the file to begin anew") from error


def _made(timings: dict[str, dict[str, float]], here: dict[str, Any]) -> dict[str, Any]:
    return {"by": "tuning", "complete": False, "timings_ms": timings, "environment": here}


def _read(file: Path) -> Plan:
    try:
        return Plan.from_json(file.read_text())
    except UsageError as error:
        raise UsageError(f"{file}: {error}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: cannot be read: {error}") from error
