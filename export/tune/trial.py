"""A graph with lowered sites. Any of them can be put back without another export."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Trial:
    """The file of a plan, in which sites can be put back.

    Args:
        keys: the keys of the sites that are lowered.
        write: writes the file with the sites of some keys as they were, and returns its path.
    """

    keys: tuple[str, ...]
    write: Callable[[frozenset[str]], Path]
