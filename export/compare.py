"""One output of two models: are the numbers the same, or near enough to the truth?

What is asked depends on what the lowering claims:

    bitwise     every element has the same bits (any NaN equals any NaN)
    otherwise   non-finite elements agree, and with a float64 reference ``ref`` of the original model

                    max|optimised - ref| <= FACTOR * max|original - ref| + ULPS * ulp(max|original|)

                so the optimised file may not be further from the truth than a small multiple of the original
                float32 file (of whose own error at most CEILING of its largest element counts); without a
                reference, or where it is not finite, |optimised - original| <= RTOL * max|original| + ATOL.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from export.session import Array

FACTOR = 4.0
ULPS = 8.0
# Of the largest element; an original further than this from the truth is no measure of what is allowed.
CEILING = 1e-2
RTOL = {"float16": 1e-2, "float32": 1e-5, "float64": 1e-13}
ATOL = 1e-7


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
        ratio = comparison.error / comparison.bound if comparison.bound else comparison.error * 1e300
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
    scale: float = 0.0,
    finite_only: bool = False,
) -> Comparison:
    """Compare one output of both files.

    Args:
        level: whether the sessions optimise.
        original, found: the outputs of the two files.
        ideal: the float64 reference of the output, or None.
        require_bitwise: ask for equal bits.
        scale: how large the output is elsewhere for inputs of this size: rounding is of what is added up,
            and where it cancels, the output itself is nothing but rounding.
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
    wide = original.astype(np.float64), found.astype(np.float64)
    with np.errstate(invalid="ignore"):
        apart = np.where(finite & np.isfinite(found), np.abs(wide[1] - wide[0]), 0.0)
    error, baseline_error, bound, distance = _bounds(wide, ideal, finite, apart, original.dtype, scale)
    result = Comparison(bool(same.all()), error, baseline_error, bound)
    special = (finite != np.isfinite(found)) | (~finite & ~same)
    if special.any() and not (finite_only and not finite.all()):
        result.mismatch = mismatch(_first(special), float("inf"), 0.0 if require_bitwise else bound)
    elif require_bitwise and not result.bitwise:
        place = _first(~same)
        result.mismatch = mismatch(place, float(apart[place]), 0.0)
    elif not result.bitwise and error > bound:
        place = tuple(int(i) for i in np.unravel_index(int(distance.argmax()), distance.shape))
        known = ideal is not None and ideal.shape == original.shape and np.isfinite(ideal[place])
        truth = original if ideal is None or not known else ideal
        result.mismatch = mismatch(place, error, bound, truth=truth)
    return result


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


def _bounds(
    wide: tuple[Array, Array],
    ideal: Array | None,
    finite: Array,
    apart: Array,
    dtype: Any,
    elsewhere: float,
) -> tuple[float, float, float, Array]:
    """(error of the optimised, error of the original, what is allowed, the error of each element).

    Elements for which the reference has no finite number are compared with the original, and scaled to the
    bound.
    """
    scale = float(np.abs(wide[0][finite]).max(initial=elsewhere))
    without = RTOL[str(dtype)] * scale + ATOL
    if ideal is None or ideal.shape != wide[0].shape:
        return float(apart.max()), 0.0, without, apart
    known = finite & np.isfinite(ideal) & np.isfinite(wide[1])
    errors = [np.where(known, np.abs(np.where(known, w, 0) - np.where(known, ideal, 0)), 0.0) for w in wide]
    baseline_error = float(errors[0].max())
    ulp = float(np.spacing(np.asarray(scale, dtype=dtype)))
    bound = FACTOR * min(baseline_error, CEILING * scale) + ULPS * ulp
    distance = np.where(known, errors[1], apart * (bound / without))
    return float(distance.max()), baseline_error, bound, distance


def _same_bits(a: Array, b: Array) -> Array:
    if not np.issubdtype(a.dtype, np.floating):
        return np.asarray(a == b)
    return np.asarray((a == b) & (np.signbit(a) == np.signbit(b)) | (np.isnan(a) & np.isnan(b)))


def _first(mask: Array) -> tuple[int, ...]:
    return tuple(int(i) for i in np.argwhere(mask)[0])
