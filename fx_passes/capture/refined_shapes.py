"""Sizes as torch suggests them, where a model needs more of them than was asked for."""

from __future__ import annotations

import copy
from typing import Any

from torch.export import Dim
from torch.export.dynamic_shapes import refine_dynamic_shapes_from_suggested_fixes

from fx_passes.graph.torch_internals import UserError, pytree


def refined_shapes(shapes: Any, error: UserError) -> Any:
    """``shapes`` with torch's suggestions. None if there are none that can be followed."""
    named = pytree.tree_map(lambda leaf: leaf if isinstance(leaf, Dim) else None, shapes)
    try:
        fixed = refine_dynamic_shapes_from_suggested_fixes(error.msg, named)
    except Exception:  # noqa: BLE001 - no suggestions, or none that torch can follow
        return None
    old, spec = pytree.tree_flatten(shapes)
    new = pytree.tree_leaves(fixed)
    if len(old) != len(new):
        return None
    return pytree.tree_unflatten(
        [_renamed(n, o) if isinstance(o, Dim) else o for o, n in zip(old, new, strict=True)], spec
    )


def _renamed(fixed: Any, asked: Dim) -> Any:
    """``fixed`` with the name that the caller gave: ``h`` instead of torch's ``2*_h``."""
    if getattr(fixed, "root", None) is None or getattr(asked, "root", None) is not None:
        return fixed
    fixed = copy.copy(fixed)  # torch shares one object among sizes of the same form
    fixed.__name__ = asked.__name__
    return fixed
