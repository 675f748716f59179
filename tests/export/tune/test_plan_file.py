"""Plans on disk: written completely, read back, and continued after an interruption."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from export.runtime.environment import environment
from export.runtime.target import Target
from export.tune import plan_file
from export.tune.options import Timings
from export.tune.plan_file import read_plan, resume, write_plan
from fx_passes.errors import ExportError, UsageError
from fx_passes.plan import Choice, Plan
from fx_passes.records import Proposal

PLAN = Plan(
    {
        "a": Choice("0123456789abcdef", Proposal("polyphase", (("phases", 16),), "finite")),
        "b": Choice("fedcba9876543210", None),
    },
    {"by": "tuning", "timings_ms": {"0123456789abcdef": {"expand": 2.0, "polyphase(phases=16)": 1.25}}},
)


def test_a_plan_is_read_as_it_was_written(tmp_path: Path) -> None:
    """The choices and how they were made are read back. The text is the same each time. No other file is
    left behind."""
    file = tmp_path / "plan.json"
    write_plan(PLAN, file)
    assert read_plan(file) == PLAN
    assert os.listdir(tmp_path) == ["plan.json"]
    before = file.read_bytes()
    write_plan(read_plan(file), file)
    assert file.read_bytes() == before


def test_a_plan_that_cannot_be_written(tmp_path: Path) -> None:
    """One line names the file and the reason. No half-written file is left."""
    with pytest.raises(ExportError, match=r"cannot write .*missing/plan.json: No such file or directory$"):
        write_plan(PLAN, tmp_path / "missing" / "plan.json")
    (tmp_path / "plan.json").mkdir()
    with pytest.raises(ExportError, match=r"cannot write .*plan.json: Is a directory$"):
        write_plan(PLAN, tmp_path / "plan.json")


NO_PLANS = {
    "text": (b"notes", "no plan: JSONDecodeError"),
    "bytes": (b"\xff\xfe\x00", "cannot be read"),
    "a list": (b"[1, 2]", "no plan: TypeError"),
    "another schema": (b'{"schema": "fx-passes/find/1", "sites": []}', "has schema 'fx-passes/find/1'"),
    "no sites": (b'{"schema": "fx-passes/plan/1"}', "no plan: KeyError"),
    "a number": (b'{"schema": "fx-passes/plan/1", "sites": 5}', "no plan: AttributeError"),
}


@pytest.mark.parametrize("name", NO_PLANS)
def test_a_file_that_is_no_plan(name: str, tmp_path: Path) -> None:
    """It is neither read nor continued. One line names it, and the file is not touched."""
    content, said = NO_PLANS[name]
    file = tmp_path / "file.json"
    file.write_bytes(content)
    for use in (read_plan, lambda file: resume(file, Target())):
        with pytest.raises(UsageError, match="file.json: .*" + said) as refused:
            use(file)
        assert "\n" not in str(refused.value)
    assert file.read_bytes() == content


def interrupted(file: Path, threads: int = 1) -> dict[str, dict[str, float]]:
    """Leave in ``file`` what an interrupted tuning leaves there. Returns its times."""
    timings = resume(file, Target(threads=threads))
    timings.known["0123456789abcdef"] = {"expand": 2.0, "lift": 1.0}
    timings.save(timings)
    return timings.known


def test_timings_are_gone_on_from(tmp_path: Path) -> None:
    """What was timed before the interruption is known. The file itself is not a plan to follow."""
    file = tmp_path / "plan.json"
    assert resume(file, Target()).known == {}
    assert not file.exists()
    known = interrupted(file)
    assert resume(file, Target()).known == known
    with pytest.raises(
        UsageError, match=r"the tuning was interrupted; run it again with --save-plan .*json$"
    ):
        read_plan(file)


OTHER: dict[str, dict[str, Any]] = {
    "another machine": {"cpu": "another"},
    "another version": {"onnxruntime": "0.0.1"},
    "another number of threads": {"threads": 2},
}


@pytest.mark.parametrize("name", OTHER)
def test_timings_from_elsewhere_are_not_used(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They say nothing about this environment, and new ones replace them."""
    file = tmp_path / "plan.json"
    monkeypatch.setattr(plan_file, "environment", lambda *targets: environment(*targets) | OTHER[name])
    interrupted(file)
    monkeypatch.setattr(plan_file, "environment", environment)
    timings = resume(file, Target())
    assert timings.known == {}
    timings.save(Timings({"key": {"expand": 1.0}}))
    assert resume(file, Target()).known == {"key": {"expand": 1.0}}


def test_threads_of_an_interrupted_tuning(tmp_path: Path) -> None:
    """Times with two threads are of no use for one thread. They are of use for two."""
    file = tmp_path / "plan.json"
    known = interrupted(file, threads=2)
    assert resume(file, Target()).known == {}
    assert resume(file, Target(threads=2)).known == known


def test_a_finished_plan_is_not_gone_on_from(tmp_path: Path) -> None:
    """A new tuning times everything again. If it is interrupted, the finished plan is still there."""
    file = tmp_path / "plan.json"
    write_plan(PLAN, file)
    interrupted(file)
    assert resume(file, Target()).known == {}
    assert read_plan(file) == PLAN


@pytest.mark.parametrize("timings", [None, 3, {"key": 3}, {"key": {"lift": "fast"}}], ids=str)
def test_timings_that_are_none(timings: object, tmp_path: Path) -> None:
    """Somebody edited an unfinished plan. One line refuses it, and the file stays as it is."""
    file = tmp_path / "plan.json"
    made = {"complete": False, "environment": environment(Target()), "timings_ms": timings}
    write_plan(Plan({}, made), file)
    before = file.read_text()
    with pytest.raises(UsageError, match=r"plan.json: its timings cannot be read; remove the file"):
        resume(file, Target())
    assert file.read_text() == before
