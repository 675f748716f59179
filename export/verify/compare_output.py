"""One output of two models: are the numbers equal, or close enough to the truth?

The lowering claims an exactness, and that decides what is required:

    bitwise     every element has the same bits (any NaN equals any NaN)
    otherwise   non-finite elements agree, and every other element is close to the truth or to the original:

                    min(|optimized - ref|, |optimized - original|)  <=  spread + ULPS * ulp(max|original|)

``ref`` is the original model in float64. ``spread`` is how far rounding can move this output for these
inputs. It is measured on the original, by putting rounding errors into it (``float64.py``; without float64,
``weight_noise.py``). Both files compute one function in float32. On every processor, each lies within the
spread of the truth. A larger difference is no rounding. An element close to the original is also accepted:
approximations of exp and similar functions are the same in both files, and are further from float64 than
rounding is.

Elements that are not floating-point must be equal. So must outputs that jump if rounding turns a decision of
the model (a threshold, a rounding to integers): no spread covers a jump.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np

from export.runtime.session import Array
from export.verify.difference import Difference
from export.verify.distances import Distances, distances, first_of, same_bits
from export.verify.level import Level

ULPS = 2.0


@dataclass(frozen=True)
class Rules:
    """The requirements for two files.

    Args:
        bitwise: require equal bits. Otherwise equal bits also pass, and are reported.
        finite_only: if the original has any element that is not finite, the optimized file may have more of
            them. Then only elements that are finite in both count.
    """

    bitwise: bool = False
    finite_only: bool = False


@dataclass(frozen=True)
class Pair:
    """One output of both files for one input.

    Args:
        output, case: the names of the output and of the input.
        level: where both files run.
        original, found: the outputs of the original and of the optimized file.
        ideal: the float64 reference of the output, or None.
        spread: how far rounding can move this output; it takes a distance from which on that does not matter.
            It is called only if the bits differ.
        rules: the requirements.
    """

    output: str
    case: str
    level: Level
    original: Array
    found: Array
    ideal: Array | None
    spread: Callable[[float], float]
    rules: Rules

    def differs(
        self, place: tuple[int, ...], needed: float, allowed: float, truth: Array | None = None
    ) -> Difference:
        """The difference at ``place``; from the original if no ``truth`` is given."""
        expected = float((self.original if truth is None else truth)[place])
        named = Difference(self.output, self.case, self.level, place)
        found = float(self.found[place])
        return replace(named, expected=expected, found=found, needed=needed, allowed=allowed)


@dataclass(frozen=True)
class Comparison:
    """How far one output is from that of the original, and the difference if it is too large."""

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
        difference = Difference(pair.output, pair.case, pair.level, detail=said)
        return Comparison(False, error=float("inf"), difference=difference)
    if not np.issubdtype(original.dtype, np.floating):
        return _compare_exactly(pair)
    return _compare_floats(pair) if original.size else Comparison(True)


def _compare_exactly(pair: Pair) -> Comparison:
    """Integers, flags and texts must be equal."""
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
    if same.all():  # equal bits are as close to the truth as the original is, however close that is
        bound = max(bound, baseline_error)
    else:
        bound += pair.spread(max(float(near.nearer().max()) - bound, 0.0))
    error, _ = near.judged(bound)
    difference = _too_far(pair, same, near, bound)
    return Comparison(bool(same.all()), error, baseline_error, bound, difference)


def _too_far(pair: Pair, same: Array, near: Distances, bound: float) -> Difference | None:
    """The difference to report, if the two outputs differ too much."""
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
    """The comparison that came closest to its bound, or exceeded it most."""
    worst, ratio = Comparison(True), -1.0
    for one in comparisons:
        if one.ratio > ratio or (one.difference and not worst.difference):
            worst, ratio = one, one.ratio
    return worst
