"""The record of a difference between two files that is too large, and how a message says it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Difference:
    """One element that differs too much, and the tolerance that would have been needed.

    Args:
        output, case: name of the output and of the input that shows it.
        optimized_session: whether the sessions optimized.
        place: the index of the element.
        expected, found: its values; ``expected`` is of the reference where that has a number.
        needed, allowed: the tolerance that would let it pass, and the one there is.
        detail: said in place of the values, where it is no single element.
        site: what causes it, where that is known.
    """

    output: str
    case: str
    optimized_session: bool
    place: tuple[int, ...] = ()
    expected: float = 0.0
    found: float = 0.0
    needed: float = 0.0
    allowed: float = 0.0
    detail: str = ""
    site: str | None = None

    def __str__(self) -> str:
        level = "default optimization" if self.optimized_session else "optimization off"
        site = f"; caused by site {self.site}" if self.site else ""
        if self.detail:
            return f"output `{self.output}` ({self.case}, {level}): {self.detail}{site}"
        return (
            f"output `{self.output}` at {list(self.place)} ({self.case}, {level}): "
            f"expected {self.expected:.9g}, found {self.found:.9g}; "
            f"a tolerance of {self.needed:.3g} would be needed, {self.allowed:.3g} is allowed{site}"
        )
