"""Under which key the times of a site are kept: its own, with a shape and a number of threads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from export.runtime.arrays import shape_text


class TimedKey(NamedTuple):
    """The parts of a key, as text. Without open sizes there is no shape; with the first number of threads,
    none is named."""

    site: str
    shape: str
    threads: str


def timed_at(key: str, shape: Sequence[int]) -> str:
    """The key of the times of a site with open sizes.

    Example:
        >>> timed_at("0a", (1, 3, 480, 640))
        '0a@1x3x480x640'
    """
    return f"{key}@{shape_text(shape)}"


def timed_with(key: str, threads: int) -> str:
    """The key of times with a further number of threads.

    Example:
        >>> timed_with("0a@1x3", 4)
        '0a@1x3~4'
    """
    return f"{key}~{threads}"


def parts_of(key: str) -> TimedKey:
    """The parts of a key.

    Example:
        >>> parts_of("0a~4")
        TimedKey(site='0a', shape='', threads='4')
    """
    rest, _, threads = key.partition("~")
    site, _, shape = rest.partition("@")
    return TimedKey(site, shape, threads)
