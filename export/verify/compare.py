"""One output of two models: are the numbers the same, or near enough to the truth?

What is asked depends on what the lowering claims:

    bitwise     every element has the same bits (any NaN equals any NaN)
    otherwise   non-finite elements agree, and every other element is near the truth or near the original:

                    min(|optimised - ref|, |optimised - original|) <= spread + ULPS * ulp(max|original|)

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

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from export.runtime.session import Array

ULPS = 2.0


@dataclass(frozen=True)
class OutputError:
    """The worst of one output over all cases: errors against the reference or the original, the bound."""

    name: str
    max_abs_error: float
    baseline_error: float
    bound: float


@dataclass(frozen=True)
class Mismatch:
    """One element that differs too much, and the tolerance that would have been needed."""

    output: str
    case: str
    optimized_session: bool
    place: tuple[int, ...]
    expected: float
    found: float
    needed: float
    allowed: float
    detail: str = ""
    site: str | None = None

    def __str__(self) -> str:
        level = "default optimisation" if self.optimized_session else "optimisation off"
        site = f"; caused by site {self.site}" if self.site else ""
        if self.detail:
            return f"output `{self.output}` ({self.case}, {level}): {self.detail}{site}"
        return (
            f"output `{self.output}` at {list(self.place)} ({self.case}, {level}): "
            f"expected {self.expected:.9g}, found {self.found:.9g}; "
            f"a tolerance of {self.needed:.3g} would be needed, {self.allowed:.3g} is allowed{site}"
        )


@dataclass
class Comparison:
    """How far one output is from the original's, and the mismatch if that is too far."""

    bitwise: bool
    error: float
    baseline_error: float
    bound: float
    mismatch: Mismatch | None = None


class Tally:
    """The comparison of one output that came closest to its bound, or went furthest beyond."""

    def __init__(self) -> None:
        self.worst = Comparison(True, 0.0, 0.0, 0.0)
        self.ratio = -1.0

    def add(self, comparison: Comparison) -> None:
        """Take one more comparison into account."""
        allowed = comparison.bound or 1e-300
        ratio = 0.0 if comparison.bitwise else comparison.error / allowed
        if ratio > self.ratio or (comparison.mismatch and not self.worst.mismatch):
            self.worst, self.ratio = comparison, ratio

    def result(self, name: str) -> OutputError:
        """What to report of the output."""
        worst = self.worst
        return OutputError(name, worst.error, worst.baseline_error, worst.bound)


def compare(
    name: str,
    case: str,
    level: bool,
    original: Array,
    found: Array,
    ideal: Array | None,
    require_bitwise: bool,
    *,
    spread: Callable[[], float],
    finite_only: bool = False,
) -> Comparison:
    """Compare one output of both files.

    Args:
        level: whether the sessions optimise.
        original, found: the outputs of the two files.
        ideal: the float64 reference of the output, or None.
        require_bitwise: ask for equal bits.
        spread: how far rounding can move this output here; asked for only where bits differ.
        finite_only: what is not finite in the original may be so in more elements: only what is finite in
            both counts, wherever the original has anything that is not.
    """

    def mismatch(
        place: tuple[int, ...], needed: float, allowed: float, detail: str = "", truth: Array = original
    ) -> Mismatch:
        expected, got = (float(a[place]) if not detail else 0.0 for a in (truth, found))
        return Mismatch(name, case, level, place, expected, got, needed, allowed, detail)

    if original.shape != found.shape or original.dtype != found.dtype:
        detail = f"expected {original.dtype}{list(original.shape)}, found {found.dtype}{list(found.shape)}"
        return Comparison(False, float("inf"), 0.0, 0.0, mismatch((), 0.0, 0.0, detail))
    same = _same_bits(original, found)
    if not np.issubdtype(original.dtype, np.floating):
        difference = (original != found).astype(np.float64)
        worst = Comparison(bool(same.all()), float(difference.max(initial=0)), 0.0, 0.0)
        if not same.all():
            place = _first(~same)
            gap = abs(float(original[place]) - float(found[place]))
            worst.mismatch = mismatch(place, gap, 0.0)
        return worst
    if original.size == 0:
        return Comparison(True, 0.0, 0.0, 0.0)
    finite = np.isfinite(original)
    near = _distances(original, found, ideal)
    scale = np.abs(original[finite]).max(initial=0.0)
    bound = ULPS * float(np.spacing(scale))
    if same.all():  # and then as near to the truth as the original, however near that is
        bound = max(bound, float(near.of_original.max()))
    else:
        bound += spread()
    error, distance = near.judged(bound)
    result = Comparison(bool(same.all()), error, float(near.of_original.max()), bound)
    special = (finite != np.isfinite(found)) | (~finite & ~same)
    if special.any() and not (finite_only and not finite.all()):
        result.mismatch = mismatch(_first(special), float("inf"), 0.0 if require_bitwise else bound)
    elif require_bitwise and not result.bitwise:
        place = _first(~same)
        result.mismatch = mismatch(place, float(near.apart[place]), 0.0)
    elif not error <= bound:
        place = tuple(int(i) for i in np.unravel_index(int(distance.argmax()), distance.shape))
        truth = ideal if ideal is not None and near.known[place] else original
        result.mismatch = mismatch(place, error, bound, truth=truth)
    return result


@dataclass(frozen=True)
class _Distances:
    """Of each element: the optimised and the original from the reference, and both from each other."""

    of_optimized: Array
    of_original: Array
    apart: Array
    known: Array

    def judged(self, bound: float) -> tuple[float, Array]:
        """The largest error and that of each element: to the reference, if ``bound`` allows that everywhere,
        else to what is nearer."""
        if self.of_optimized.max() <= bound:
            return float(self.of_optimized.max()), self.of_optimized
        nearer = np.minimum(self.of_optimized, self.apart)
        return float(nearer.max()), nearer


def _distances(original: Array, found: Array, ideal: Array | None) -> _Distances:
    both = np.isfinite(original) & np.isfinite(found)
    wide = [np.where(both, array, 0).astype(np.float64) for array in (found, original)]
    apart = np.abs(wide[0] - wide[1])
    if ideal is None or ideal.shape != original.shape:
        return _Distances(apart, np.zeros_like(apart), apart, np.zeros_like(both))
    known = both & np.isfinite(ideal)
    truth = np.where(known, ideal, 0)
    errors = [np.where(known, np.abs(array - truth), 0.0) for array in wide]
    return _Distances(np.where(known, errors[0], apart), errors[1], apart, known)


def overflow(name: str, case: str, original: Array) -> str | None:
    """What is said of an output that is not finite where a lowering is exact for finite numbers alone."""
    count = int((~np.isfinite(original)).sum()) if np.issubdtype(original.dtype, np.floating) else 0
    if not count:
        return None
    return (
        f"{case}: output `{name}` of the original has {count} elements that are not finite; only others count"
    )


def lost_number(name: str, case: str, original: Array, ideal: Array | None) -> str | None:
    """Where the original file has no number, though the model in float64 has one."""
    if ideal is None or ideal.shape != original.shape or not np.issubdtype(original.dtype, np.floating):
        return None
    lost = np.isfinite(ideal) & ~np.isfinite(original)
    if not lost.any():
        return None
    place = _first(lost)
    return (
        f"{case}: output `{name}` of the stock export is {original[place]} at {list(place)}, where the model "
        f"in float64 gives {ideal[place]:.4g}; the files were compared with each other there"
    )


def _same_bits(a: Array, b: Array) -> Array:
    if not np.issubdtype(a.dtype, np.floating):
        return np.asarray(a == b)
    return np.asarray((a == b) & (np.signbit(a) == np.signbit(b)) | (np.isnan(a) & np.isnan(b)))


def _first(mask: Array) -> tuple[int, ...]:
    return tuple(int(i) for i in np.argwhere(mask)[0])
