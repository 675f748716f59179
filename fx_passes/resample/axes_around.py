"""What an axis becomes with a chain of data movements in front of it or behind it: at one length, and at all
of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fx_passes.resample.axes import Axis, Moved, Resample, absorb_after, absorb_before
from fx_passes.resample.chains import Step, axes_moved, places_kept
from fx_passes.resample.lengths import Size, at, large_samples, plain


def axes_before(
    resample: Resample, steps: tuple[Step, ...], shape: tuple[int, ...], after: tuple[int, ...]
) -> tuple[tuple[Axis, ...], str] | None:
    """The axes and the padding mode, if a chain of ``steps`` makes the input from a tensor of ``shape``."""
    dim = resample.dim
    moved = axes_moved(steps, shape, after, dim)
    if moved is None:
        return None
    sizes = shape[-dim:]
    if any(
        _reads_what_is_cropped(axis, move, size)
        for axis, (move, _), size in zip(resample.axes, moved, sizes, strict=True)
    ):
        return None
    modes = {mode for _, mode in moved} - {"zeros"}
    if len(modes) > 1:
        return None
    axes = tuple(
        absorb_before(axis, size, move)
        for axis, size, (move, _) in zip(resample.axes, sizes, moved, strict=True)
    )
    if any(_reads_padding_alone(axis, size) for axis, size in zip(axes, sizes, strict=True)):
        return None
    return axes, modes.pop() if modes else resample.mode


def axes_behind(
    resample: Resample, steps: tuple[Step, ...], shapes: tuple[tuple[int, ...], ...]
) -> tuple[Axis, ...] | None:
    """The axes, if a chain of ``steps`` behind the convolution keeps some of its outputs.

    Args:
        shapes: of the input and the output of the convolution, and of the end.
    """
    (given, before, after), dim = shapes, resample.dim
    cuts = places_kept(steps, before, after, dim)
    if cuts is None:
        return None
    axes = []
    for axis, (first, step, count), size in zip(resample.axes, cuts, given[-dim:], strict=True):
        kept = absorb_after(axis, size, first, step, count)
        if _reads_padding_alone(kept, size):
            return None
        axes.append(kept)
    return tuple(axes)


def in_common(ways: Sequence[tuple[Axis, ...] | None]) -> tuple[Axis, ...] | None:
    """The axes that hold at every length; None if there are none, or if a length has none.

    ``Axis.extent`` gives a number of outputs by a division that is rounded down, so several of them give the
    same. That of ``absorb_after`` is the smallest.
    """
    known = [way for way in ways if way is not None]
    if len(known) != len(ways):
        return None
    axes = tuple(
        replace(same[0], extent=max(axis.extent for axis in same)) for same in zip(*known, strict=True)
    )
    for way in known:
        for axis, one in zip(axes, way, strict=True):
            if replace(one, extent=axis.extent) != axis or axis.extent - one.extent >= axis.down:
                return None
    return axes


def between(resample: Resample, shape: tuple[Size, ...], end: tuple[Size, ...]) -> Resample | None:
    """``resample`` with the shapes of its ends. None if it does not give ``end`` for every ``shape``.

    With open sizes, the shapes that the graph states are compared at large sizes, too: a bound that cuts only
    long inputs shows there.
    """
    dim = resample.dim
    for values in large_samples((*shape, *end)):
        sizes = zip(resample.axes, at(shape, values)[-dim:], at(end, values)[-dim:], strict=True)
        if any(axis.size(before) != after for axis, before, after in sizes):
            return None
    leading: tuple[int | None, ...] = ()
    if None in plain((*shape, *end)):
        named = _leading(shape, end, dim)
        if named is None:
            return None
        leading = named if named != _leading_alone(resample, shape) else ()
    return replace(resample, in_shape=plain(shape), out_shape=plain(end), leading=leading)


def _leading(shape: tuple[Size, ...], end: tuple[Size, ...], dim: int) -> tuple[int | None, ...] | None:
    """The sizes in front of the axes of an output, as in ``Resample``. None if they have no such form."""
    found: list[int | None] = []
    for size in end[:-dim]:
        if isinstance(size, int):
            found.append(size)
        else:
            found.append(~shape[:-dim].index(size) if size in shape[:-dim] else None)
    return tuple(found) if found.count(None) <= 1 else None


def _leading_alone(resample: Resample, shape: tuple[Size, ...]) -> tuple[int | None, ...]:
    """The same, for a convolution that reads a tensor of ``shape`` by itself."""
    sizes = shape[: -resample.dim - 1]
    kept = (size if isinstance(size, int) else ~place for place, size in enumerate(sizes))
    return (*kept, resample.groups * resample.rows)


def _reads_padding_alone(axis: Axis, length: int) -> bool:
    """Whether no output of an axis reads the input."""
    return -axis.shift >= length * axis.up or axis.last(length) < 0


def _reads_what_is_cropped(axis: Axis, moved: Moved, length: int) -> bool:
    """Whether ``axis`` would read samples that ``moved`` cut off, where it has zeros now."""
    low = moved.first < 0 and axis.shift > 0
    cut = moved.first + (length - 1) * moved.up >= moved.length
    return low or (cut and axis.last(moved.length) > moved.length - 1)
