"""Which sizes stay open: ``dynamic_shapes`` for torch, from ``--dynamic`` or from an exported program."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.utils import _pytree as pytree

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


def program_shapes(program: ExportedProgram) -> Any:
    """The ``dynamic_shapes`` that a program was exported with: its open sizes, argument by argument."""
    names = set(program.graph_signature.user_inputs)
    nodes = [node for node in program.graph.nodes if node.op == "placeholder" and node.name in names]
    shapes = [_open_sizes(node.meta.get("val")) for node in nodes]
    if not any(shapes) or len(shapes) != len(program.graph_signature.user_inputs):
        return None
    assert program.call_spec.in_spec is not None
    arguments, keywords = pytree.tree_unflatten(shapes, program.call_spec.in_spec)
    return None if keywords else tuple(arguments)


def _open_sizes(value: Any) -> dict[int, Any] | None:
    if not isinstance(value, Tensor):
        return None
    return {i: Dim.DYNAMIC for i, size in enumerate(value.shape) if isinstance(size, torch.SymInt)} or None
