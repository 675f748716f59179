"""Decides which sizes of a model's inputs stay open, from the caller's request and the model's needs.

A model may have more conditions on a size than ``dynamic_shapes`` state: at least nine rows, an even number,
as many rows as columns. ``torch.export`` then refuses, and suggests other ``dynamic_shapes``.
``torch.onnx.export`` tries again with those. This file does the same, with the same settings. If the model
fixes a size that must stay open, it is refused: the exporter would fix it silently.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import sympy
import torch
from torch import Tensor, nn
from torch.export import AdditionalInputs, Dim, ExportedProgram, ShapesCollection

from fx_passes.capture.asked_sizes import (
    OpenSizes,
    arguments_of,
    asked_of,
    inputs_of,
    insisted,
    require_open,
    with_notes,
)
from fx_passes.capture.larger_example import larger_example
from fx_passes.capture.refined_shapes import refined_shapes
from fx_passes.errors import CaptureError, one_line
from fx_passes.graph.torch_internals import (
    ATEN_ASSERT_SCALAR,
    GUARDS_LOG,
    UserError,
    pytree,
    sizes_of_one_stay_open,
)

# One suggestion may lead to another: a size that is even, and then at least 4.
_ROUNDS = 4


def export_open(
    model: nn.Module, inputs: Sequence[Any], dynamic_shapes: Any
) -> tuple[ExportedProgram, OpenSizes]:
    """``torch.export`` of ``model`` with open sizes, as ``torch.onnx.export`` does it, and the sizes.

    Args:
        inputs: positional arguments of ``model``. An open size may be 1 in them.
        dynamic_shapes: as for ``torch.onnx.export``: for each open size a ``Dim``, a name, ``Dim.DYNAMIC`` or
            ``Dim.AUTO``.

    Raises:
        CaptureError: torch cannot export the model, or the model fixes a size that must stay open.
            ``Dim.AUTO`` leaves the choice to the model.
        UsageError: ``dynamic_shapes`` do not fit the inputs.

    Example:
        >>> conv = nn.Conv1d(1, 1, 9).eval()
        >>> _, sizes = export_open(conv, (torch.rand(1, 1, 30),), ({2: Dim("length")},))
        >>> sizes.notes
        ('size `length` of `input`: at least 9, as the model needs it',)
    """
    if isinstance(dynamic_shapes, ShapesCollection | AdditionalInputs):
        dynamic_shapes = dynamic_shapes.dynamic_shapes(model, tuple(inputs))
    asked = asked_of(arguments_of(model, inputs), dynamic_shapes)
    try:
        program, sizes = _captured(model, tuple(inputs), dynamic_shapes, asked)
    except (Exception, SystemExit) as error:  # the model's code may raise anything
        _blame_fixed_size(model, tuple(inputs), dynamic_shapes, asked)
        raise CaptureError(
            f"{type(model).__name__} cannot be captured with these open sizes: torch.export: "
            f"{type(error).__name__}: {one_line(error)}"
        ) from error
    require_open(program, sizes, asked)
    return program, with_notes(program, sizes, asked)


def open_sizes(
    model: nn.Module | ExportedProgram, inputs: Sequence[Any], dynamic_shapes: Any
) -> OpenSizes | None:
    """The sizes that ``model`` has with ``dynamic_shapes``. None: all sizes are fixed.

    Raises:
        CaptureError, UsageError: as :func:`export_open`.
    """
    if dynamic_shapes is None:
        return None
    if isinstance(model, ExportedProgram):
        sizes = _sizes_of(model, dynamic_shapes)
        require_open(model, sizes, asked_of(arguments_of(model, inputs), dynamic_shapes), captured=True)
        return sizes
    return export_open(model, inputs, dynamic_shapes)[1]


def _captured(
    model: nn.Module, inputs: tuple[Any, ...], dynamic_shapes: Any, asked: Sequence[Mapping[int, Any]]
) -> tuple[ExportedProgram, OpenSizes]:
    """The program and its sizes, from the given example or from a larger one (``larger_example.py``)."""
    found, failed = None, None
    try:
        found = _with_sizes(model, inputs, dynamic_shapes)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the model's own code may raise anything
        failed = error
    if found is not None and not _is_narrow(found[1]):
        return found
    if (larger := larger_example(inputs, asked)) is not None:
        with suppress(Exception, SystemExit):  # then the first attempt says more about the model
            program, sizes = _with_sizes(model, larger, dynamic_shapes)
            if not _is_narrow(sizes):
                return program, replace(sizes, ranges=_down_to_one(sizes, inputs), example=larger)
    if failed is not None:
        raise failed
    assert found is not None
    return found


def _with_sizes(
    model: nn.Module, inputs: tuple[Any, ...], dynamic_shapes: Any
) -> tuple[ExportedProgram, OpenSizes]:
    program, refined = _exported(model, inputs, dynamic_shapes)
    return program, _sizes_of(program, refined)


def _is_narrow(sizes: OpenSizes) -> bool:
    """Whether an open size can only be 1 or 2."""
    return any(high is not None and high <= 2 for _, high in (sizes.ranges or {}).values())


def _down_to_one(sizes: OpenSizes, inputs: tuple[Any, ...]) -> dict[sympy.Symbol, tuple[int, int | None]]:
    """The ranges, from 1 on for sizes that are 1 in the given inputs."""
    given = [leaf.shape for leaf in pytree.tree_leaves(inputs) if isinstance(leaf, Tensor)]
    pairs = [
        pair for shape, row in zip(given, sizes.shapes, strict=True) for pair in zip(shape, row, strict=True)
    ]
    ones = {size for known, size in pairs if known == 1}
    return {s: (1 if s in ones else low, high) for s, (low, high) in (sizes.ranges or {}).items()}


def _exported(model: nn.Module, inputs: tuple[Any, ...], dynamic_shapes: Any) -> tuple[ExportedProgram, Any]:
    """The program, and the ``dynamic_shapes`` that torch accepted, including names of sizes.

    As in ``torch.onnx.export``: torch runs the model's code, and if that fails, reads it ("strict").
    """
    try:
        return _exported_so(model, inputs, dynamic_shapes, strict=False)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the model's own code may raise anything
        try:
            with _silent(GUARDS_LOG):
                return _exported_so(model, inputs, dynamic_shapes, strict=True)
        except (Exception, SystemExit):  # noqa: BLE001 - as above
            raise error from None  # the first error says more about the model


@contextmanager
def _silent(name: str) -> Iterator[None]:
    """Within it, the logger ``name`` is off. torch logs some errors that it also raises."""
    logger = logging.getLogger(name)
    before = logger.disabled
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = before


def _exported_so(
    model: nn.Module, inputs: tuple[Any, ...], dynamic_shapes: Any, *, strict: bool
) -> tuple[ExportedProgram, Any]:
    shapes = dynamic_shapes
    for left in reversed(range(_ROUNDS)):
        try:
            # As torch.onnx.export calls it: a size of 1 stays open, and torch defers checks to run time.
            with sizes_of_one_stay_open(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                program = torch.export.export(
                    model,
                    inputs,
                    dynamic_shapes=_replaced(shapes, str, Dim.DYNAMIC),
                    strict=strict,
                    prefer_deferred_runtime_asserts_over_guards=True,
                )
            return program, shapes
        except UserError as error:
            refined = refined_shapes(shapes, error)
            if refined is None or not left:
                raise
            shapes = refined
    raise AssertionError("unreachable")


def _replaced(shapes: Any, kind: type | tuple[type, ...], by: Any) -> Any:
    return pytree.tree_map(lambda leaf: by if isinstance(leaf, kind) else leaf, shapes)


def _sizes_of(program: ExportedProgram, dynamic_shapes: Any) -> OpenSizes:
    shapes = tuple(
        tuple(n if isinstance(n, int) else n.node.expr for n in value.shape)
        for _, value in inputs_of(program)
        if isinstance(value, Tensor)
    )
    symbols = {s for shape in shapes for n in shape for s in getattr(n, "free_symbols", ())}
    ranges = {}
    for symbol in symbols:
        bounds = program.range_constraints.get(symbol)
        low, high = (bounds.lower, bounds.upper) if bounds is not None else (0, sympy.oo)
        finite = getattr(high, "is_finite", True) and high < 2**31
        ranges[symbol] = (max(int(low), 1), int(high) if finite else None)
    conditions = tuple(
        condition
        for node in program.graph.nodes
        if node.target is ATEN_ASSERT_SCALAR
        and isinstance(node.args[0], torch.fx.Node)
        and (condition := _condition(node.args[0].meta.get("val"))) is not None
        and condition.free_symbols <= symbols
    )
    return OpenSizes(dynamic_shapes, shapes, ranges, conditions)


def _condition(value: Any) -> sympy.Basic | None:
    return value.node.expr if isinstance(value, torch.SymBool) else None


def _blame_fixed_size(
    model: nn.Module, inputs: tuple[Any, ...], dynamic_shapes: Any, asked: Sequence[Mapping[int, Any]]
) -> None:
    """Raise an error that names the size that torch cannot keep open. It is found by leaving all sizes to
    torch."""
    free = pytree.tree_map(lambda leaf: Dim.AUTO if insisted(leaf) else leaf, dynamic_shapes)
    try:
        program, _ = _exported(model, inputs, free)
    except (Exception, SystemExit):  # noqa: BLE001 - then open sizes are not the cause
        return
    require_open(program, _sizes_of(program, None), asked)
