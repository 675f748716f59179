"""One ``--dynamic`` -> the sizes that it opens, with their names and bounds."""

from __future__ import annotations

import keyword
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from fx_passes.errors import UsageError

BATCH = "batch"
_FORMS = "batch or INPUT:DIM[,DIM]; a size can have a name and bounds: INPUT:DIM=NAME[LOW..HIGH]"
# DIM=NAME[LOW..HIGH], of which only the first is needed. No more digits than a size can have.
_SIZE = re.compile(r"([^=\[\]]*)(?:=([^\[\]]*))?(?:\[([^\[\]]*)\])?")
_BOUNDS = re.compile(r"(\d{0,18})\.\.(\d{0,18})")


@dataclass(frozen=True)
class Opened:
    """A size that stays open.

    Args:
        spec: the text that says so, for errors.
        which: name or number of an argument. None: dimension 0 of every tensor.
        dim: the dimension, as text that may be wrong.
        name, low, high: of the size, where the text gives them.
    """

    spec: str
    which: str | None
    dim: str
    name: str | None = None
    low: int | None = None
    high: int | None = None

    def merged(self, other: Opened) -> Opened:
        """This size with the bounds that only ``other`` gives.

        Raises:
            UsageError: both give a bound, and not the same.
        """
        for ours, theirs in ((self.low, other.low), (self.high, other.high)):
            if ours is not None and theirs is not None and ours != theirs:
                raise UsageError(
                    f"--dynamic: size `{self.name}` has one bound of {ours} ({self.spec}) "
                    f"and one of {theirs} ({other.spec}); one name is one size"
                )
        low = other.low if self.low is None else self.low
        return replace(self, low=low, high=other.high if self.high is None else self.high)

    def said(self) -> str:
        """The bounds in words."""
        if self.low is None or self.high is None:
            return f"at most {self.high}" if self.low is None else f"at least {self.low}"
        return f"{self.low} to {self.high}"


def parse(spec: str) -> list[Opened]:
    """The sizes that ``spec`` opens.

    Raises:
        UsageError: it has none of the forms.

    Example:
        >>> [(size.dim, size.name, size.low, size.high) for size in parse("x:2=h[32..2048],3=w")]
        [('2', 'h', 32, 2048), ('3', 'w', None, None)]
        >>> [(size.which, size.name, size.low, size.high) for size in parse("batch=n[..16]")]
        [(None, 'n', None, 16)]
    """
    which, colon, dims = spec.partition(":")
    if colon:
        return [_size(spec, which, text) for text in dims.split(",")]
    size = _size(spec, None, spec) if re.fullmatch(r"batch([=\[].*)?", spec) else None
    if size is None:
        raise UsageError(f"--dynamic takes {_FORMS}; got {spec!r}")
    return [replace(size, dim="0", name=size.name or BATCH)]


def _size(spec: str, which: str | None, text: str) -> Opened:
    """The size that ``text`` describes, which is ``spec`` or a part of it."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise UsageError(f"--dynamic takes {_FORMS}; got {text!r} in {spec!r}")
    dim, name, bounds = match.groups()
    if name is not None and (not name.isidentifier() or keyword.iskeyword(name)):
        raise UsageError(f"--dynamic {spec}: a name must be a Python identifier, got {name!r}")
    if bounds is None:
        return Opened(spec, which, dim, name)
    limits = _BOUNDS.fullmatch(bounds)
    if limits is None or not any(limits.groups()):
        raise UsageError(f"--dynamic {spec}: bounds are [LOW..HIGH], [LOW..] or [..HIGH], got [{bounds}]")
    low, high = (int(limit) if limit else None for limit in limits.groups())
    return Opened(spec, which, dim, name, low, high)


def by_name(sizes: Sequence[Opened]) -> dict[str, Opened]:
    """For each name one size, with all bounds that are given for it.

    Args:
        sizes: all of them with names.

    Raises:
        UsageError: bounds of one name contradict each other, or leave no choice.
    """
    found: dict[str, Opened] = {}
    for size in sizes:
        assert size.name is not None
        found[size.name] = found[size.name].merged(size) if size.name in found else size
    for name, size in found.items():
        if size.high is not None and (size.low or 0) >= size.high:
            raise UsageError(
                f"--dynamic {size.spec}: size `{name}` from {size.low or 0} to {size.high} is not open; "
                "LOW must be less than HIGH"
            )
    return found
