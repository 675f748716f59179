"""Cases drawn at random by hypothesis."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from cases import Case
from hypothesis import assume
from hypothesis import strategies as st
from known import TESTED
from oracle import of

from fx_passes.records import ConvGeometry

# Draws one of the given options, or of those that the lowering under test steers to.
Choose = Callable[[str, list[Any]], Any]


def taken(name: str) -> st.SearchStrategy[Case]:
    """Cases for which the way ``name`` is proposed."""

    def proposed(case: Case) -> bool:
        kernel = case.kernel(torch.float64, integers=False)
        return bool(of(name, case.resample(), kernel, case.siblings))

    return cases(name).filter(proposed)


@st.composite
def cases(draw: st.DrawFn, name: str = "") -> Case:
    """Any convolution of one kernel that torch accepts, with sizes that keep it quick."""
    steer = TESTED[name].steer if name else {}

    def choose(what: str, options: list[Any]) -> Any:
        return draw(st.sampled_from(steer.get(what, options)))

    dim, transposed = choose("dim", [1, 2, 2, 2, 3]), choose("transposed", [False, True])
    axes, small = range(dim), dim == 3
    kernel = tuple(choose("taps", [1, 2, 3] if small else [1, 2, 3, 4, 5, 6]) for _ in axes)
    stride, dilation = (tuple(choose(what, [1, 1, 2, 3]) for _ in axes) for what in ("stride", "dilation"))
    padding: Any = tuple(draw(st.integers(0, 2)) for _ in axes)
    extra = tuple(draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True))
    sizes = tuple(choose("size", list(range(3, 6 if small else 21))) for _ in axes)
    modes = ["zeros", "reflect", "replicate", "circular"]
    mode = "zeros" if transposed else draw(st.sampled_from(modes))
    if mode == "zeros" and not transposed and draw(st.integers(0, 5)) == 0:
        padding, stride = "same", (1,) * dim
    groups = draw(st.integers(1, 4))
    rows, columns = choose("block", [(1, 1), (1, 1), (2, 1), (1, 2), (2, 3)])
    blocked = choose("blocked", [False, False, True])
    op = f"conv{'_transpose' if transposed else ''}{dim}d"
    groups = max(groups, 2) if blocked else groups
    ends = groups * columns, groups * rows
    extra = extra if transposed else (0,) * dim
    geometry = ConvGeometry(op, *ends, groups, kernel, stride, padding, dilation, extra, mode)
    batch = choose("batch", [1, 2, 3])
    bias = draw(st.sampled_from([None, "shared", "channel"]))
    rank, seed = choose("rank", [0, 1, 2]), draw(st.integers(0, 99))
    siblings = choose("siblings", [1])
    case = Case(geometry, batch, rows, columns, sizes, blocked, bias, rank, seed, siblings=siblings)
    if mode == "zeros" and draw(st.booleans()):
        case = _behind_a_pad(case, draw, choose)
    if draw(st.booleans()):
        case = _before_a_cut(case, draw, choose)
    assume(_reaches_the_input(case))
    return case


def _behind_a_pad(case: Case, draw: st.DrawFn, choose: Choose) -> Case:
    """The case with padding before the convolution, and perhaps zeros between the elements."""
    axes = range(len(case.sizes))
    front_mode = draw(st.sampled_from(["zeros", "reflect", "replicate"]))
    front = tuple((draw(st.integers(0, 2)), draw(st.integers(0, 2))) for _ in axes)
    stuff = tuple(choose("stuff", [1, 1, 2, 3]) for _ in axes)
    stuffed = front_mode == "zeros" and choose("stuffed", [False, True])
    return replace(case, front=front, front_mode=front_mode, stuff=stuff if stuffed else ())


def _before_a_cut(case: Case, draw: st.DrawFn, choose: Choose) -> Case:
    """The case with a part of the output of the convolution, times a factor."""
    kept = tuple(
        (draw(st.integers(0, 2)), choose("step", [1, 1, 2]), draw(st.integers(0, 2))) for _ in case.sizes
    )
    return replace(case, keep=kept, scale=choose("scale", [1.0, 0.5, -2.0]))


def _reaches_the_input(case: Case) -> bool:
    """Whether there is an output, and one along each axis that is not of padding alone."""
    resample = case.resample()
    sizes = zip(resample.axes, case.sizes, resample.out_shape[2:], strict=True)
    for axis, size, out in sizes:
        if out is None or out < 1:
            return False
        last = (out - 1) * axis.down + axis.span - axis.shift
        if -axis.shift >= size * axis.up or last < 0:
            return False
    return min(_conv_sizes(case)) > 0


def _conv_sizes(case: Case) -> list[int]:
    """Sizes of the output of the convolution itself, which torch wants to be above 0."""
    whole = replace(case, keep=()).resample()
    return [size for size in whole.out_shape[2:] if size is not None]
