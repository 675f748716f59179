"""Notes for the report on outputs of the original that are not finite."""

from __future__ import annotations

import numpy as np

from export.runtime.session import Array
from export.verify.distances import first_of


def overflow(name: str, case: str, original: Array) -> str | None:
    """A note on an output with elements that are not finite, for lowerings that are exact only for finite
    numbers."""
    count = int((~np.isfinite(original)).sum()) if np.issubdtype(original.dtype, np.floating) else 0
    if not count:
        return None
    return (
        f"{case}: output `{name}` of the original has {count} elements that are not finite; only others count"
    )


def lost_number(name: str, case: str, original: Array, ideal: Array | None) -> str | None:
    """A note on an element without a number in the original file, although the model has one in float64."""
    if ideal is None or ideal.shape != original.shape or not np.issubdtype(original.dtype, np.floating):
        return None
    lost = np.isfinite(ideal) & ~np.isfinite(original)
    if not lost.any():
        return None
    place = first_of(lost)
    return (
        f"{case}: output `{name}` of the stock export is {original[place]} at {list(place)}, where the model "
        f"in float64 gives {ideal[place]:.4g}; the files were compared with each other there"
    )
