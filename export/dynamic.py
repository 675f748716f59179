"""What ``--dynamic`` says -> the ``dynamic_shapes`` of ``torch.export.export``."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from fx_passes.errors import UsageError


def dynamic_shapes(
    model: nn.Module | ExportedProgram,
    example_inputs: Sequence[Any] | None,
    specs: Sequence[str],
) -> tuple[Any, ...] | None:
    """One entry per positional argument: {dimension: Dim}, or None where all its sizes are fixed.

    Args:
        specs: each ``batch`` (dimension 0 of every tensor argument, one common size), or
            ``INPUT:DIM[,DIM]`` with the argument's name or number.

    Raises:
        UsageError: a spec has another form, or names an argument or dimension that is not there.

    Example:
        >>> import torch
        >>> dynamic_shapes(nn.ReLU(), (torch.rand(2, 3),), ["input:0"])
        ({0: Dim('input_0', min=0)},)
    """
    if not specs:
        return None
    if isinstance(model, ExportedProgram):
        raise UsageError("--dynamic: the sizes of an exported program were fixed when it was exported")
    if example_inputs is None:
        raise UsageError("--dynamic needs example inputs: give --input")
    names = list(inspect.signature(model.forward).parameters)
    shapes: list[dict[int, Dim]] = [{} for _ in example_inputs]
    for spec in specs:
        if spec == "batch":
            batch = Dim("batch")
            for shape, value in zip(shapes, example_inputs, strict=True):
                if isinstance(value, Tensor) and value.ndim:
                    shape[0] = batch
            continue
        which, colon, dims = spec.partition(":")
        if not colon:
            raise UsageError(f"--dynamic takes batch or INPUT:DIM[,DIM], got {spec!r}")
        position = _position(which, names, len(shapes))
        for text in dims.split(","):
            value = example_inputs[position]
            if not text.isdigit() or not isinstance(value, Tensor) or int(text) >= value.ndim:
                raise UsageError(f"--dynamic {spec}: argument {which!r} has no dimension {text!r}")
            shapes[position][int(text)] = Dim(f"{names[position]}_{text}")
    return tuple(shape or None for shape in shapes)


def _position(which: str, names: list[str], count: int) -> int:
    position = names.index(which) if which in names else int(which) if which.isdigit() else count
    if position >= count:
        raise UsageError(f"--dynamic: no argument {which!r}; there are {', '.join(names[:count])}")
    return position
