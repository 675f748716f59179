"""The rows and columns of a bank: each kernel as a column times a row, those with the same row together."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from fx_passes.kernels.factor import factorise
from fx_passes.lowerings.forms.refusals import refuse
from fx_passes.records import Refusal


@dataclass(frozen=True)
class Line:
    """A row, and the columns that are multiplied with it, float64.

    Args:
        outputs: for each column, which output of the group the product is.
    """

    row: Tensor
    columns: Tensor
    outputs: tuple[int, ...]


def lines_of(kernel: Tensor) -> list[Line] | None:
    """The factors of the kernels, by their rows. None if a kernel is no product."""
    found: list[Line] = []
    for output in range(len(kernel)):
        for place, line in enumerate(found):
            if one := _line(kernel, (*line.outputs, output)):
                found[place] = one
                break
        else:
            if (one := _line(kernel, (output,))) is None:
                return None
            found.append(one)
    return found


def _line(kernel: Tensor, outputs: tuple[int, ...]) -> Line | None:
    """The row of these outputs with their columns: one above the other, their kernels have rank 1."""
    pairs = factorise(kernel[list(outputs), 0].flatten(0, 1), 1)
    return None if pairs is None else Line(pairs[0][1], pairs[0][0].unflatten(0, (len(outputs), -1)), outputs)


def lines_refusal(kernel: Tensor) -> Refusal:
    """Why the kernels (R, 1, *taps) of a bank are not separated."""
    if kernel.ndim != 4:
        return refuse("dimensions", f"a {kernel.ndim - 2}-D kernel is not separated")
    if min(kernel.shape[2:]) == 1:
        return refuse("line", "the kernel is a row or a column already")
    return refuse("rank", "one of its kernels is no product of a column and a row")
