"""The goals of the speed benchmark: pairs of columns, and how much faster the first one must be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from contestants import COMPILED, OPENVINO, OPENVINO_OURS, OURS, SEPARABLE, STOCK, TORCH, TORCH_OURS
from graphs import NO_LOSS
from more_graphs import ALL


@dataclass(frozen=True)
class Goal:
    """``column`` must be ``least`` times as fast as ``against``. 1.0: faster. NO_LOSS: not slower."""

    column: str
    against: str
    least: float

    def __str__(self) -> str:
        if self.least == NO_LOSS:
            return f"{self.column}: not below {NO_LOSS}x {self.against}"
        amount = "faster than" if self.least == 1 else f"{self.least:g}x"
        return f"{self.column}: {amount} {self.against}"


def goals_of(name: str, lowered: bool) -> list[Goal]:
    """The goals of one graph.

    Args:
        lowered: whether the plan computes any site in another way. If not, the lowered torch model is the
            original one, and must be equally fast.
    """
    goals = [Goal(OURS, STOCK, ALL[name].goal)]
    if name != "vocoder":
        goals.append(Goal(TORCH_OURS, TORCH, 1.0 if lowered else NO_LOSS))
        goals.append(Goal(OURS, OPENVINO, NO_LOSS))
    if name == "blur31":
        goals.append(Goal(OURS, SEPARABLE, 1.0))
    if name in ("blur11", "blur31", "ssim"):
        goals.append(Goal(TORCH_OURS, COMPILED, NO_LOSS))
    goals.append(Goal(OPENVINO_OURS, OPENVINO, NO_LOSS))
    return goals


def judge(goal: Goal, measured: Mapping[str, Any]) -> dict[str, Any]:
    """A goal with the measured ratio, as JSON.

    Args:
        measured: ``ratio`` of ``goal.column`` over ``goal.against`` with its ``ci95``, or ``failed``.

    ``met`` compares the median ratio with the goal. ``within_noise`` says that the interval contains the
    goal.
    """
    said = {"column": goal.column, "against": goal.against, "goal": goal.least, "text": str(goal)}
    if "failed" in measured:
        return {**said, "failed": measured["failed"], "met": False, "within_noise": False}
    low, high = measured["ci95"]
    return {
        **said,
        **measured,
        "met": measured["ratio"] >= goal.least,
        "within_noise": low < goal.least <= high,
    }
