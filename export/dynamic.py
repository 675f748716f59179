"""Which sizes stay open: ``dynamic_shapes`` for torch, from ``--dynamic`` or from an exported program."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from fx_passes.capture.asked_sizes import arguments_of, asked_of, inputs_of, name_of
from fx_passes.capture.open_sizes import open_sizes
from fx_passes.errors import UsageError
from fx_passes.graph.torch_internals import pytree


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
    parameters = inspect.signature(model.forward).parameters
    names = list(parameters)
    shapes: list[Any] = [{} if isinstance(value, Tensor) else None for value in example_inputs]
    for spec in specs:
        if spec == "batch":
            batch = Dim("batch")
            shapes = [_batched(v, s, batch) for v, s in zip(example_inputs, shapes, strict=True)]
            continue
        which, colon, dims = spec.partition(":")
        if not colon:
            raise UsageError(f"--dynamic takes batch or INPUT:DIM[,DIM], got {spec!r}")
        position = _position(which, names, len(shapes))
        for text in dims.split(","):
            value = example_inputs[position]
            if not text.isdigit() or not isinstance(value, Tensor) or int(text) >= value.ndim:
                raise UsageError(f"--dynamic {spec}: argument {which!r} has no dimension {text!r}")
            name = names[position] if position < len(names) else f"input_{position}"
            shapes[position][int(text)] = Dim(f"{name}_{text}")
    kinds = [parameter.kind for parameter in parameters.values()]
    given = [shape or None for shape in shapes]
    if inspect.Parameter.VAR_POSITIONAL in kinds:  # for torch, *args are one argument
        first = kinds.index(inspect.Parameter.VAR_POSITIONAL)
        given[first:] = [tuple(given[first:])]
    return tuple(given)


def _batched(value: Any, sizes: Any, batch: Dim) -> Any:
    """What is open of an argument, and dimension 0 of every tensor in it."""
    if isinstance(value, Tensor):
        return {**(sizes or {}), 0: batch} if value.ndim else None
    return pytree.tree_map(
        lambda leaf: _batched(leaf, None, batch) if isinstance(leaf, Tensor) else None, value
    )


def _position(which: str, names: list[str], count: int) -> int:
    position = names.index(which) if which in names else int(which) if which.isdigit() else count
    if position >= count:
        raise UsageError(f"--dynamic: no argument {which!r}; there are {', '.join(names[:count])}")
    return position


def program_shapes(program: ExportedProgram, dynamic_shapes: Any = None) -> Any:
    """The open sizes of a program, argument by argument, with the names that ``dynamic_shapes`` give them.

    Raises:
        CaptureError: the program fixes a size that is to stay open.
        UsageError: ``dynamic_shapes`` do not fit its arguments.
    """
    open_sizes(program, (), dynamic_shapes)
    asked = asked_of(arguments_of(program, ()), dynamic_shapes)
    shapes = [_named(value, names) for (_, value), names in zip(inputs_of(program), asked, strict=True)]
    if not any(shapes):
        return None
    args, kwargs = pytree.tree_unflatten(shapes, program.call_spec.in_spec)
    return (*args, *kwargs.values())


def program_inputs(program: ExportedProgram) -> tuple[Any, ...] | None:
    """The example inputs of a program, those given by keyword in their place; None where it has none."""
    if not program.example_inputs:
        return None
    args, kwargs = program.example_inputs
    return (*args, *(kwargs[name] for name in program.call_spec.in_spec.child(1).context))


def _named(value: Any, asked: Mapping[int, Any]) -> dict[int, str] | None:
    """A name for each open size of an input: that of the caller, or the program's own."""
    sizes = enumerate(value.shape) if hasattr(value, "shape") else ()
    return {
        dim: name_of(asked.get(dim)) or str(size.node.expr)
        for dim, size in sizes
        if not isinstance(size, int)
    } or None
