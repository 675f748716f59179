"""Which sizes of a model's inputs stay open: what the caller asked for, and what the model makes of it.

A model may need more of a size than ``dynamic_shapes`` say: nine rows at least, an even number, as many as
columns. ``torch.export`` then refuses, and suggests other ``dynamic_shapes``. ``torch.onnx.export`` tries
again with those, and so it is done here, with the same settings. A size that the model fixes is refused:
the exporter would fix it without a word.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from typing import Any

import sympy
import torch
from torch import Tensor, nn
from torch._dynamo.exc import UserError
from torch.export import Dim, ExportedProgram
from torch.export.dynamic_shapes import refine_dynamic_shapes_from_suggested_fixes
from torch.fx.experimental import _config as symbolic
from torch.utils import _pytree as pytree

from fx_passes.asked_sizes import OpenSizes, asked_of, inputs_of, insisted, require_open, with_notes
from fx_passes.errors import FxPassesError

log = logging.getLogger(__name__)

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
        CaptureError: the model fixes a size that is to stay open; ``Dim.AUTO`` leaves that to the model.
        Exception: whatever torch or the model raises.

    Example:
        >>> conv = nn.Conv1d(1, 1, 9).eval()
        >>> _, sizes = export_open(conv, (torch.rand(1, 1, 30),), ({2: Dim("length")},))
        >>> sizes.notes
        ('size `length` of `input`: at least 9, as the model needs it',)
    """
    try:
        program, refined = _exported(model, tuple(inputs), dynamic_shapes)
    except Exception:
        _blame_fixed_size(model, tuple(inputs), dynamic_shapes)
        raise
    sizes = _sizes_of(program, refined)
    asked = asked_of(model, inputs, dynamic_shapes)
    require_open(program, sizes, asked)
    return program, sizes if asked is None else with_notes(program, sizes, asked)


def open_sizes(
    model: nn.Module | ExportedProgram, inputs: Sequence[Any], dynamic_shapes: Any
) -> OpenSizes | None:
    """What ``model`` makes of ``dynamic_shapes``; None where all sizes are fixed.

    Where torch cannot export the model, what the caller asked for is all that is known.

    Raises:
        CaptureError: the model fixes a size that is to stay open.
    """
    if dynamic_shapes is None:
        return None
    if isinstance(model, ExportedProgram):
        return _sizes_of(model, dynamic_shapes)
    try:
        return export_open(model, inputs, dynamic_shapes)[1]
    except FxPassesError:
        raise
    except (Exception, SystemExit):  # whatever the model raises: there may be another route
        log.debug("torch.export failed", exc_info=True)
        return OpenSizes(dynamic_shapes)


def _exported(model: nn.Module, inputs: tuple[Any, ...], dynamic_shapes: Any) -> tuple[ExportedProgram, Any]:
    """The program, and the ``dynamic_shapes`` that torch accepted, names of sizes among them."""
    shapes = dynamic_shapes
    for left in reversed(range(_ROUNDS)):
        try:
            # As torch.onnx.export calls it: a size of 1 stays open, what can wait is checked at run time.
            with symbolic.patch(backed_size_oblivious=True), warnings.catch_warnings():  # type: ignore[attr-defined]
                warnings.simplefilter("ignore")
                program = torch.export.export(
                    model,
                    inputs,
                    dynamic_shapes=_replaced(shapes, str, Dim.DYNAMIC),
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
    except Exception:  # no suggestions in it, or of a kind that torch itself does not follow
        return None
    old, spec = pytree.tree_flatten(shapes)
    new = pytree.tree_leaves(fixed)
    if len(old) != len(new):
        return None
    return pytree.tree_unflatten(
        [n if isinstance(o, Dim) else o for o, n in zip(old, new, strict=True)], spec
    )


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
        if node.target is torch.ops.aten._assert_scalar.default
        and isinstance(node.args[0], torch.fx.Node)
        and (condition := _condition(node.args[0].meta.get("val"))) is not None
        and condition.free_symbols <= symbols
    )
    return OpenSizes(dynamic_shapes, shapes, ranges, conditions)


def _condition(value: Any) -> sympy.Basic | None:
    return value.node.expr if isinstance(value, torch.SymBool) else None


def _blame_fixed_size(model: nn.Module, inputs: tuple[Any, ...], dynamic_shapes: Any) -> None:
    """Where torch cannot keep a size open: say which one, found by leaving all of them to torch."""
    asked = asked_of(model, inputs, dynamic_shapes)
    free = pytree.tree_map(lambda leaf: Dim.AUTO if insisted(leaf) else leaf, dynamic_shapes)
    try:
        program, _ = _exported(model, inputs, free)
    except (Exception, SystemExit):  # then it is not the open sizes
        return
    require_open(program, _sizes_of(program, None), asked)
