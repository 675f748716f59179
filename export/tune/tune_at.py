"""The sizes that a caller wants to tune at -> shapes of all inputs, checked against what stays open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import sympy
from onnx import TensorShapeProto

from export.read_onnx.model import OnnxModel
from export.runtime.arrays import shape_text
from fx_passes.capture.asked_sizes import OpenSizes
from fx_passes.errors import UsageError

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Batch:
    """A batch size: dimension 0 of every input that has it open. The other sizes are those of the example."""

    size: int


# Shapes of all inputs in their order, or of some by name; the others keep the sizes of the example.
Wanted = Sequence[Sequence[int]] | Mapping[str, Sequence[int]] | Batch


class _NotTaken(ValueError):
    """The model does not take the sizes that are wanted."""


@dataclass(frozen=True)
class _Place:
    """A size of an input: what the model says of it, and what is wanted."""

    title: str
    stated: sympy.Expr
    wanted: int


def shapes_to_tune_at(
    wanted: Sequence[Wanted], model: OnnxModel, example: Sequence[Sequence[int]], sizes: OpenSizes | None
) -> tuple[tuple[Shape, ...], ...]:
    """For each of ``wanted`` the shapes of all inputs of ``model``, in their order.

    Args:
        model: the file that is optimized. Its names for sizes are those of errors.
        example: shapes of the example inputs. Empty: nothing in the model can be changed, so it is not run.
        sizes: what the model takes. None: the file says which sizes are open, without bounds.

    Raises:
        UsageError: no size is open; or an input is not there, has another rank, or a size that the model does
            not take.
    """
    if not wanted:
        return ()
    if sizes is None or len(sizes.shapes) != len(model.inputs):
        sizes = _of_file(model, example)
    if all(sympy.sympify(size).is_number for shape in sizes.shapes for size in shape):
        raise nothing_open(wanted)
    if not example:
        return ()
    names = list(model.inputs)
    asked = []
    for one in wanted:
        try:
            named = _of_batch(one, names, example, sizes) if isinstance(one, Batch) else one
            asked.append(_complete(named, names, example))
            _require_taken(_places(model, sizes, asked[-1]), sizes)
        except _NotTaken as error:
            option = "--batch-sizes" if isinstance(one, Batch) else "--tune-at"
            raise UsageError(f"{option}: {error}") from None
    return tuple(dict.fromkeys(asked))


def nothing_open(wanted: Sequence[Wanted]) -> UsageError:
    """The error for a model without an open size, or without an open batch."""
    if any(isinstance(one, Batch) for one in wanted):
        said = "no input has an open batch, its dimension 0 (for a torch model, add --dynamic batch)"
        return UsageError(f"--batch-sizes: {said}")
    return UsageError("--tune-at: no size is open (for a torch model, --dynamic opens sizes)")


def _of_batch(
    batch: Batch, names: Sequence[str], example: Sequence[Sequence[int]], sizes: OpenSizes
) -> dict[str, Shape]:
    """The shapes of the inputs whose dimension 0 is open, with that batch."""
    inputs = zip(names, example, sizes.shapes, strict=True)
    found = {
        name: (batch.size, *here[1:])
        for name, here, stated in inputs
        if stated and not sympy.sympify(stated[0]).is_number
    }
    if not found:
        raise nothing_open([batch])
    return found


def _of_file(model: OnnxModel, example: Sequence[Sequence[int]]) -> OpenSizes:
    """What a file says: a name for each open size, or nothing. Without a shape, all sizes are open."""
    shapes = []
    for place, (name, value) in enumerate(model.inputs.items()):
        kind = value.type.tensor_type
        dims: Sequence[TensorShapeProto.Dimension] = kind.shape.dim
        if not kind.HasField("shape"):
            rank = len(example[place]) if example else 1
            dims = [TensorShapeProto.Dimension()] * rank
        shapes.append(tuple(_stated(dim, f"{name}[{number}]") for number, dim in enumerate(dims)))
    return OpenSizes(None, tuple(shapes))


def _stated(dim: TensorShapeProto.Dimension, place: str) -> int | sympy.Symbol:
    """The size that a file states, or a symbol for an open one. A negative size is an open one."""
    if dim.HasField("dim_value") and dim.dim_value >= 0:
        return dim.dim_value
    return sympy.Symbol(dim.dim_param or place)


def _complete(
    wanted: Sequence[Sequence[int]] | Mapping[str, Sequence[int]],
    names: Sequence[str],
    example: Sequence[Sequence[int]],
) -> tuple[Shape, ...]:
    """The shapes of all inputs, each of the rank of its example."""
    if not isinstance(wanted, Mapping):
        if len(wanted) != len(names):
            raise _NotTaken(
                f"got shapes of {len(wanted)} inputs, the model has {len(names)} "
                f"({', '.join(names)}); give all of them in their order, or some by name"
            )
        wanted = dict(zip(names, wanted, strict=True))
    unknown = [name for name in wanted if name not in names]
    if unknown:
        raise _NotTaken(f"the model has no input {unknown[0]!r}; it has {', '.join(names)}")
    shapes = []
    for name, here in zip(names, example, strict=True):
        shape = tuple(wanted.get(name, here))
        if len(shape) != len(here):
            said = f"has {len(here)} dimensions ({shape_text(here)}), got {len(shape)}"
            raise _NotTaken(f"input `{name}` {said}")
        shapes.append(shape)
    return tuple(shapes)


def _places(model: OnnxModel, sizes: OpenSizes, shapes: Sequence[Shape]) -> list[_Place]:
    """All sizes of all inputs. Those that are symbols come first: expressions follow from them."""
    places = []
    for (name, value), stated, shape in zip(model.inputs.items(), sizes.shapes, shapes, strict=True):
        names = [dim.dim_param for dim in value.type.tensor_type.shape.dim] or [""] * len(shape)
        for dim, said in enumerate(names):
            title = f"size {dim}" + (f" (`{said}`)" if said else "") + f" of `{name}`"
            places.append(_Place(title, sympy.sympify(stated[dim]), shape[dim]))
    return sorted(places, key=lambda place: not place.stated.is_Symbol)


def _require_taken(places: Sequence[_Place], sizes: OpenSizes) -> None:
    """Raise an error that names the first size that the model does not take with those before it."""
    values: dict[sympy.Symbol, int] = {}
    first: dict[sympy.Symbol, _Place] = {}
    for place in places:
        unknown = place.stated.free_symbols - set(values)
        if len(unknown) == 1:
            (symbol,) = unknown
            values[symbol] = _solved(place, symbol, values)
            first[symbol] = place
            _require_within(place, symbol, values, sizes)
        elif not unknown and (needed := place.stated.subs(values)) != place.wanted:
            others = [first[symbol] for symbol in sorted(place.stated.free_symbols, key=str)]
            why = " and ".join(f"{other.title} is {other.wanted}" for other in others) or "it is not open"
            raise _NotTaken(f"{place.title} must be {needed}, as {why}; got {place.wanted}")
    for condition in sizes.conditions:
        if condition.subs(values) == sympy.false:
            involved = [
                first[symbol] for symbol in sorted(condition.free_symbols, key=str) if symbol in first
            ]
            said = " and ".join(f"{place.wanted} for {place.title}" for place in involved)
            raise _NotTaken(f"the model does not take {said}")


def _solved(place: _Place, symbol: sympy.Symbol, values: Mapping[sympy.Symbol, int]) -> int:
    """The value of ``symbol`` for which a size is the wanted one."""
    if place.stated == symbol:
        return place.wanted
    form = place.stated.subs(values)
    roots = sympy.roots(form - place.wanted, symbol) if form.is_polynomial(symbol) else ()
    found = [int(root) for root in roots if root.is_Integer]
    if not found:
        form = form.subs(symbol, sympy.Symbol("n"))
        raise _NotTaken(f"{place.title} cannot be {place.wanted}: it is of the form {form}")
    return max(found)


def _require_within(
    place: _Place, symbol: sympy.Symbol, values: Mapping[sympy.Symbol, int], sizes: OpenSizes
) -> None:
    """Raise an error if a size lies outside the bounds that the caller stated or the model needs."""
    low, high = (sizes.ranges or {}).get(symbol, (1, None))
    value = values[symbol]
    if value >= low and (high is None or value <= high):
        return
    ends = [place.stated.subs({**values, symbol: end}) for end in (low, high) if end is not None]
    said = f"{ends[0]} to {ends[1]}" if len(ends) == 2 else f"at least {ends[0]}"
    raise _NotTaken(f"{place.title} must be {said}, got {place.wanted}")
