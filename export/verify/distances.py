"""Element by element: which bits are equal, and how far two arrays are from the truth and from each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from export.runtime.session import Array


@dataclass(frozen=True)
class Distances:
    """Distances of each element.

    Args:
        of_optimized, of_original: distances from the reference. If the reference has no number, the distance
            of the optimized element from the original, and 0.
        apart: distances from each other.
        known: where the reference has a number.
    """

    of_optimized: Array
    of_original: Array
    apart: Array
    known: Array

    def judged(self, bound: float) -> tuple[float, Array]:
        """The largest error and the error of each element.

        Errors are distances from the reference, if ``bound`` allows all of those. Otherwise each is the
        distance from the reference or from the original, whichever is nearer.
        """
        if self.of_optimized.max() <= bound:
            return float(self.of_optimized.max()), self.of_optimized
        nearer = self.nearer()
        return float(nearer.max()), nearer

    def nearer(self) -> Array:
        """The distance of each element from the reference or from the original, whichever is nearer."""
        return np.minimum(self.of_optimized, self.apart)


def distances(original: Array, found: Array, ideal: Array | None) -> Distances:
    """How far ``found`` and ``original`` are from ``ideal``. 0 for an element that is not finite in both.

    Args:
        original, found: floating-point arrays of one shape.
        ideal: the reference in float64. None, or another shape: there is none.
    """
    both = np.isfinite(original) & np.isfinite(found)
    wide = [np.where(both, array, 0).astype(np.float64) for array in (found, original)]
    apart = np.abs(wide[0] - wide[1])
    if ideal is None or ideal.shape != original.shape:
        return Distances(apart, np.zeros_like(apart), apart, np.zeros_like(both))
    known = both & np.isfinite(ideal)
    truth = np.where(known, ideal, 0)
    errors = [np.where(known, np.abs(array - truth), 0.0) for array in wide]
    return Distances(np.where(known, errors[0], apart), errors[1], apart, known)


def same_bits(a: Array, b: Array) -> Array:
    """Where two arrays of one shape and type have equal bits. Any NaN equals any NaN."""
    if not np.issubdtype(a.dtype, np.floating):
        return np.asarray(a == b)
    return np.asarray((a == b) & (np.signbit(a) == np.signbit(b)) | (np.isnan(a) & np.isnan(b)))


def first_of(mask: Array) -> tuple[int, ...]:
    """The index of the first element that is true."""
    return tuple(int(i) for i in np.argwhere(mask)[0])


def apart_by_output(clean: Sequence[Array], found: Sequence[Array]) -> list[float]:
    """The largest difference of each output, where both have numbers. Infinite if the shapes differ."""
    if len(clean) != len(found):
        return [float("inf")] * len(clean)
    return [_farthest(a, b) for a, b in zip(clean, found, strict=True)]


def _farthest(a: Array, b: Array) -> float:
    if a.shape != b.shape:
        return float("inf")
    if a.dtype.kind not in "fc":
        return float((a != b).any())
    with np.errstate(invalid="ignore"):
        apart = np.abs(a - b) if a.dtype.kind == "c" else np.abs(a.astype(np.float64) - b)
    return float(apart[np.isfinite(apart)].max(initial=0.0))
