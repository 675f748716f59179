"""Delta debugging (Zeller and Hildebrandt): a smallest part of a list with which something still fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise


def smallest(items: Sequence[int], fails: Callable[[tuple[int, ...]], bool]) -> tuple[int, ...]:
    """A part of ``items``, in their order, that fails, and does not without any single one of them.

    Halves are tried first, then what is left without a part, then smaller parts.

    Args:
        items: they fail together.
        fails: asked once for each part.

    Example:
        >>> smallest(range(100), lambda part: {40, 41} <= set(part))
        (40, 41)
    """
    known: dict[tuple[int, ...], bool] = {(): False}

    def still(part: tuple[int, ...]) -> bool:
        if part not in known:
            known[part] = fails(part)
        return known[part]

    kept, count = tuple(items), 2
    while len(kept) > 1:
        parts = _split(kept, count)
        rests = [tuple(item for item in kept if item not in set(part)) for part in parts]
        if (found := next((part for part in parts if still(part)), None)) is not None:
            kept, count = found, 2
        elif (found := next((rest for rest in rests if still(rest)), None)) is not None:
            kept, count = found, max(count - 1, 2)
        elif count >= len(kept):
            break
        else:
            count = min(2 * count, len(kept))
    return kept


def _split(items: tuple[int, ...], count: int) -> list[tuple[int, ...]]:
    """``count`` parts of about equal length, in order."""
    ends = [len(items) * i // count for i in range(count + 1)]
    return [items[start:end] for start, end in pairwise(ends)]
