"""Which sizes of a model's inputs stay open: what the caller asked for, and what the model makes of it.

A model may need more of a size than ``dynamic_shapes`` say: nine rows at least, an even number, as many as
columns. ``torch.export`` then refuses, and suggests other ``dynamic_shapes``. ``torch.onnx.export`` tries
again with those, and so it is done here, with the same settings. A size that the model fixes is refused:
the exporter would fix it without a word.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import sympy
import torch
from torch import Tensor, nn
from torch.export import AdditionalInputs, Dim, ExportedProgram, ShapesCollection
from torch.export.dynamic_shapes import refine_dynamic_shapes_from_suggested_fixes

from fx_passes.capture.asked_sizes import (
    OpenSizes,
    arguments_of,
    asked_of,
    inputs_of,
    insisted,
    require_open,
    with_notes,
)
from fx_passes.errors import CaptureError, one_line
from fx_passes.graph.torch_internals import (
    ATEN_ASSERT_SCALAR,
    GUARDS_LOG,
    UserError,
    pytree,
    sizes_of_one_stay_open,
)

# A suggestion may lead to the next one: a size that is even, and then at least 4.
_ROUNDS = 4


def export_open(
    model: nn.Module, inputs: Sequence[Any], dynamic_shapes: Any
) -> tuple[ExportedProgram, OpenSizes]:
    """``torch.export`` of ``model`` with open sizes, as ``torch.onnx.export`` does it.

    Args:
        inputs: positional arguments of ``model``; an open size may be 1 in them.
        dynamic_shapes: as for ``torch.onnx.export``: for each open size a ``Dim``, a name, ``Dim.DYNAMIC`` or
            ``Dim.AUTO``.

    Raises:
        CaptureError: torch cannot export the model, or it fixes a size that is to stay open; ``Dim.AUTO``
            leaves that to the model.
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
        program, refined = _exported(model, tuple(inputs), dynamic_shapes)
    except (Exception, SystemExit) as error:  # whatever the model raises
        _blame_fixed_size(model, tuple(inputs), dynamic_shapes, asked)
        raise CaptureError(
            f"{type(model).__name__} cannot be captured with these open sizes: torch.export: "
            f"{type(error).__name__}: {one_line(error)}"
        ) from error
    sizes = _sizes_of(program, refined)
    require_open(program, sizes, asked)
    return program, with_notes(program, sizes, asked)


def open_sizes(
    model: nn.Module | ExportedProgram, inputs: Sequence[Any], dynamic_shapes: Any
) -> OpenSizes | None:
    """What ``model`` makes of ``dynamic_shapes``; None where all sizes are fixed.

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


def _exported(model: nn.Module, inputs: tuple[Any, ...], dynamic_shapes: Any) -> tuple[ExportedProgram, Any]:
    """The program, and the ``dynamic_shapes`` that torch accepted, names of sizes among them.

    As ``torch.onnx.export``, by running the model's code, and where that fails by reading it ("strict").
    """
    try:
        return _exported_so(model, inputs, dynamic_shapes, strict=False)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the model's own code may raise anything
        try:
            with _silent(GUARDS_LOG):
                return _exported_so(model, inputs, dynamic_shapes, strict=True)
        except (Exception, SystemExit):  # noqa: BLE001 - the same
            raise error from None  # the first says more of the model


@contextmanager
def _silent(name: str) -> Iterator[None]:
    """Without what torch logs as an error, and raises too."""
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
            # As torch.onnx.export calls it: a size of 1 stays open, what can wait is checked at run time.
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
            refined = _refined(shapes, error)
            if refined is None or not left:
                raise
            shapes = refined
    raise AssertionError("unreachable")


def _refined(shapes: Any, error: UserError) -> Any:
    """``shapes`` with what torch suggests; None where it suggests nothing that can be done."""
    named = pytree.tree_map(lambda leaf: leaf if isinstance(leaf, Dim) else None, shapes)
    try:
        fixed = refine_dynamic_shapes_from_suggested_fixes(error.msg, named)
    except Exception:  # noqa: BLE001 - no suggestions in it, or of a kind that torch itself does not follow
        return None
    old, spec = pytree.tree_flatten(shapes)
    new = pytree.tree_leaves(fixed)
    if len(old) != len(new):
        return None
    return pytree.tree_unflatten(
        [_renamed(n, o) if isinstance(o, Dim) else o for o, n in zip(old, new, strict=True)], spec
    )


def _renamed(fixed: Any, asked: Dim) -> Any:
    """``fixed`` with the name that the caller gave: ``h``, where torch says ``2*_h``."""
    if getattr(fixed, "root", None) is None or getattr(asked, "root", None) is not None:
        return fixed
    fixed = copy.copy(fixed)  # torch takes one object for all sizes of the same form
    fixed.__name__ = asked.__name__
    return fixed


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
    """Where torch cannot keep a size open: say which one, found by leaving all of them to torch."""
    free = pytree.tree_map(lambda leaf: Dim.AUTO if insisted(leaf) else leaf, dynamic_shapes)
    try:
        program, _ = _exported(model, inputs, free)
    except (Exception, SystemExit):  # noqa: BLE001 - then it is not the open sizes
        return
    require_open(program, _sizes_of(program, None), asked)
