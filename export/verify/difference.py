"""The record of a difference that is too large, and its message."""

from __future__ import annotations

from dataclasses import dataclass

from export.verify.level import Level


@dataclass(frozen=True)
class Difference:
    """One element that differs too much, and the tolerance that would be needed.

    Args:
        output, case: the names of the output, and of the input that shows the difference.
        level: where both files run.
        place: the index of the element.
        expected, found: its values. ``expected`` is that of the reference, if it has a number there.
        needed, allowed: the tolerance that would let it pass, and the tolerance that is allowed.
        detail: the text instead of values, if it is not about a single element.
        site: the site that causes it, if that is known.
    """

    output: str
    case: str
    level: Level
    place: tuple[int, ...] = ()
    expected: float = 0.0
    found: float = 0.0
    needed: float = 0.0
    allowed: float = 0.0
    detail: str = ""
    site: str | None = None

    def __str__(self) -> str:
        site = f"; caused by site {self.site}" if self.site else ""
        if self.detail:
            return f"output `{self.output}` ({self.case}, {self.level}): {self.detail}{site}"
        return (
            f"output `{self.output}` at {list(self.place)} ({self.case}, {self.level}): "
            f"expected {self.expected:.9g}, found {self.found:.9g}; "
            f"a tolerance of {self.needed:.3g} would be needed, {self.allowed:.3g} is allowed{site}"
        )
