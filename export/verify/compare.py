"""One output of two models: are the numbers the same, or near enough to the truth?

What is asked depends on what the lowering claims:

    bitwise     every element has the same bits (any NaN equals any NaN)
    otherwise   non-finite elements agree, and every other element is near the truth or near the original:

                    min(|optimized - ref|, |optimized - original|) <= spread + ULPS * ulp(max|original|)

                ``ref`` is the original model in float64. ``spread`` is how far rounding can move this output
                for these inputs: measured on the original by putting rounding errors in (``float64.py``;
                without float64, ``weight_noise.py``). Both files compute one function in float32, each within
                the spread of the truth, whatever the processor; what is further off is no rounding.
                Near the original counts too: approximations of exp and the like are the same in both
                files, and further from float64 than rounding is.

Elements that are no floats, and outputs that jump where rounding turns a decision of the model (a threshold,
a rounding to integers), must be the same: no spread covers a jump.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np

from export.runtime.session import Array
from export.verify.difference import Difference
from export.verify.distances import Distances, distances, first_of, same_bits

ULPS = 2.0


@dataclass(frozen=True)
class Rules:
    """What two files are asked for.

    Args:
        bitwise: equal bits. Without it, equal bits pass too, and are reported.
        finite_only: what is not finite in the original may be so in more elements: only what is finite in
            both counts, wherever the original has anything that is not.
    """

    bitwise: bool = False
    finite_only: bool = False


@dataclass(frozen=True)
class Pair:
    """One output of both files for one input.

    Args:
        output, case: the names of the output and of the input.
        optimized_session: whether the sessions optimize.
        original, found: what the original file and the optimized file give.
        ideal: the float64 reference of the output, or None.
        spread: how far rounding can move this output here; asked for only where bits differ.
        rules: what the two are asked for.
    """

    output: str
    case: str
    optimized_session: bool
    original: Array
    found: Array
    ideal: Array | None
    spread: Callable[[], float]
    rules: Rules

    def differs(
        self, place: tuple[int, ...], needed: float, allowed: float, truth: Array | None = None
    ) -> Difference:
        """The difference at ``place``, from the original where no ``truth`` is given."""
        expected = float((self.original if truth is None else truth)[place])
        named = Difference(self.output, self.case, self.optimized_session, place)
        found = float(self.found[place])
        return replace(named, expected=expected, found=found, needed=needed, allowed=allowed)


@dataclass(frozen=True)
class Comparison:
    """How far one output is from the original's, and the difference if that is too far."""

    bitwise: bool
    error: float = 0.0
    baseline_error: float = 0.0
    bound: float = 0.0
    difference: Difference | None = None

    @property
    def ratio(self) -> float:
        """The error over the bound."""
        return 0.0 if self.bitwise else self.error / (self.bound or 1e-300)


def compare(pair: Pair) -> Comparison:
    """Compare one output of both files."""
    original, found = pair.original, pair.found
    if original.shape != found.shape or original.dtype != found.dtype:
        said = f"expected {original.dtype}{list(original.shape)}, found {found.dtype}{list(found.shape)}"
        difference = Difference(pair.output, pair.case, pair.optimized_session, detail=said)
        return Comparison(False, error=float("inf"), difference=difference)
    if not np.issubdtype(original.dtype, np.floating):
        return _compare_exactly(pair)
    return _compare_floats(pair) if original.size else Comparison(True)


def _compare_exactly(pair: Pair) -> Comparison:
    """Integers, flags and texts have to be the same."""
    other = ~same_bits(pair.original, pair.found)
    if not other.any():
        return Comparison(True)
    place = first_of(other)
    gap = abs(float(pair.original[place]) - float(pair.found[place]))
    return Comparison(False, error=1.0, difference=pair.differs(place, gap, 0.0))


def _compare_floats(pair: Pair) -> Comparison:
    same = same_bits(pair.original, pair.found)
    near = distances(pair.original, pair.found, pair.ideal)
    baseline_error = float(near.of_original.max())
    scale = np.abs(pair.original[np.isfinite(pair.original)]).max(initial=0.0)
    bound = ULPS * float(np.spacing(scale))
    if same.all():  # and then as near to the truth as the original, however near that is
        bound = max(bound, baseline_error)
    else:
        bound += pair.spread()
    error, _ = near.judged(bound)
    difference = _too_far(pair, same, near, bound)
    return Comparison(bool(same.all()), error, baseline_error, bound, difference)


def _too_far(pair: Pair, same: Array, near: Distances, bound: float) -> Difference | None:
    """The element to name, if the two may not differ as they do."""
    finite, rules = np.isfinite(pair.original), pair.rules
    special = (finite != np.isfinite(pair.found)) | (~finite & ~same)
    if special.any() and not (rules.finite_only and not finite.all()):
        return pair.differs(first_of(special), float("inf"), 0.0 if rules.bitwise else bound)
    if rules.bitwise and not same.all():
        place = first_of(~same)
        return pair.differs(place, float(near.apart[place]), 0.0)
    error, errors = near.judged(bound)
    if error <= bound:
        return None
    place = tuple(int(i) for i in np.unravel_index(int(errors.argmax()), errors.shape))
    truth = pair.ideal if near.known[place] else None
    return pair.differs(place, error, bound, truth)


def worst_of(comparisons: Iterable[Comparison]) -> Comparison:
    """The comparison that came closest to its bound, or went furthest beyond it."""
    worst, ratio = Comparison(True), -1.0
    for one in comparisons:
        if one.ratio > ratio or (one.difference and not worst.difference):
            worst, ratio = one, one.ratio
    return worst
