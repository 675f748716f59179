"""Which sizes stay open: ``dynamic_shapes`` for torch, from ``--dynamic`` or from an exported program."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from export.dynamic_spec import Opened, by_name, parse
from fx_passes.capture.asked_sizes import arguments_of, asked_of, inputs_of, name_of
from fx_passes.capture.open_sizes import open_sizes
from fx_passes.errors import UsageError
from fx_passes.graph.torch_internals import pytree


@dataclass(frozen=True)
class _Placed:
    """An open size with the number of its argument, or None for dimension 0 of every tensor.

    Args:
        explicit: the caller gave it a name or bounds.
    """

    size: Opened
    position: int | None
    explicit: bool


def dynamic_shapes(
    model: nn.Module | ExportedProgram,
    example_inputs: Sequence[Any] | None,
    specs: Sequence[str],
) -> tuple[Any, ...] | None:
    """One entry for each positional argument: {dimension: Dim}, or None if all its sizes are fixed.

    Args:
        model, example_inputs: the model and its positional arguments.
        specs: each is ``batch`` (dimension 0 of every tensor argument, one common size), or
            ``INPUT:DIM[,DIM]`` with the name or the number of the argument. Behind ``batch`` and behind each
            DIM, ``=NAME`` gives the size a name, and ``[LOW..HIGH]`` bounds, either of which may be left out.
            One name is one size, wherever it is.

    Raises:
        UsageError: a spec has another form, or names an argument or dimension that is not there. Names or
            bounds contradict each other or the example.

    Example:
        >>> import torch
        >>> dynamic_shapes(nn.ReLU(), (torch.rand(2, 3),), ["input:0"])
        ({0: Dim('input_0', min=0)},)
        >>> dynamic_shapes(nn.ReLU(), (torch.rand(2, 3),), ["input:0=rows[1..64],1"])
        ({0: Dim('rows', min=1, max=64), 1: Dim('input_1', min=0)},)
    """
    if not specs:
        return None
    if isinstance(model, ExportedProgram):
        raise UsageError("--dynamic: the sizes of an exported program were fixed when it was exported")
    if example_inputs is None:
        raise UsageError("--dynamic needs example inputs: give --input")
    parameters = inspect.signature(model.forward).parameters
    names = _names(parameters.values(), len(example_inputs))
    placed = [_placed(size, names, example_inputs) for spec in specs for size in parse(spec)]
    merged = by_name([one.size for one in placed])
    of_places = _of_places(placed, example_inputs)
    for name, size in merged.items():
        own = {place: one for place, one in of_places.items() if one.size.name == name}
        _require_example(size, own, names)
    shapes: list[Any] = [{} if isinstance(value, Tensor) else None for value in example_inputs]
    dims = {name: Dim(name, min=size.low, max=size.high) for name, size in merged.items()}
    for one in placed:
        dim = dims[str(one.size.name)]
        if one.position is None:
            shapes = [_batched(v, s, dim) for v, s in zip(example_inputs, shapes, strict=True)]
        else:
            shapes[one.position][int(one.size.dim)] = dim
    kinds = [parameter.kind for parameter in parameters.values()]
    given = [shape or None for shape in shapes]
    if inspect.Parameter.VAR_POSITIONAL in kinds:  # for torch, *args are one argument
        first = kinds.index(inspect.Parameter.VAR_POSITIONAL)
        given[first:] = [tuple(given[first:])]
    return tuple(given)


def _placed(size: Opened, names: list[str], inputs: Sequence[Any]) -> _Placed:
    """A size with its place and a name: that of the caller, or one made of argument and dimension."""
    if size.which is None:
        return _Placed(size, None, size.spec != "batch")
    position = _position(size.which, names, len(inputs))
    value = inputs[position]
    if not size.dim.isdecimal() or not isinstance(value, Tensor) or int(size.dim) >= value.ndim:
        raise UsageError(f"--dynamic {size.spec}: argument {size.which!r} has no dimension {size.dim!r}")
    explicit = (size.name, size.low, size.high) != (None, None, None)
    name = size.name or f"{_argument(position, names)}_{size.dim}"
    return _Placed(replace(size, name=name), position, explicit)


def _names(parameters: Iterable[inspect.Parameter], count: int) -> list[str]:
    """The names of ``count`` positional arguments. Those of ``*args`` are ``args_0``, ``args_1``, ..., as in
    the file."""
    names: list[str] = []
    for parameter in parameters:
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            names += [f"{parameter.name}_{number}" for number in range(count - len(names))]
        else:
            names.append(parameter.name)
    return names


def _argument(position: int, names: list[str]) -> str:
    return names[position] if position < len(names) else f"input_{position}"


def _places(one: _Placed, inputs: Sequence[Any]) -> Iterator[tuple[int, int, int]]:
    """Number of the argument, dimension, and size in the example, for each place of an open size."""
    for position, value in enumerate(inputs):
        if one.position in (None, position):
            tensors = [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, Tensor) and leaf.ndim]
            yield from ((position, int(one.size.dim), t.shape[int(one.size.dim)]) for t in tensors)


def _of_places(placed: Sequence[_Placed], inputs: Sequence[Any]) -> dict[tuple[int, int, int], _Placed]:
    """The size of each place. Of two names that we made, the later one is taken.

    Raises:
        UsageError: a place has two names.
    """
    before: dict[tuple[int, int, int], _Placed] = {}
    for one in placed:
        for place in _places(one, inputs):
            other = before.get(place, one)
            if other.size.name != one.size.name and (other.explicit or one.explicit):
                raise UsageError(
                    f"--dynamic: {one.size.spec} names a size `{one.size.name}` that is already "
                    f"`{other.size.name}` ({other.size.spec})"
                )
            before[place] = one
    return before


def _require_example(size: Opened, own: Mapping[tuple[int, int, int], _Placed], names: list[str]) -> None:
    """Raise an error if a size has two values in the example, or one outside its bounds.

    Args:
        own: the places that have it.
    """
    places = list(own)
    for position, dim, found in places:
        where = f"dimension {dim} of {_argument(position, names)!r}"
        if found < (size.low or 0) or (size.high is not None and found > size.high):
            raise UsageError(
                f"--dynamic: size `{size.name}` must be {size.said()}, but {where} is {found} in the example"
            )
        if found != places[0][2]:
            start, others = _argument(places[0][0], names), any(one.explicit for one in own.values())
            said = f"dimension {places[0][1]} of {start!r} is {places[0][2]}, {where} is {found}"
            hint = "" if others else f"; name the inputs that have it, as in --dynamic {start}:0"
            raise UsageError(f"--dynamic: size `{size.name}` has two values in the example: {said}{hint}")


def _batched(value: Any, sizes: Any, batch: Dim) -> Any:
    """The open sizes of an argument, and dimension 0 of every tensor in it."""
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
        CaptureError: the program fixes a size that should stay open.
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
    """The example inputs of a program, those given by keyword in their place. None if it has none."""
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
