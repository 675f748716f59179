"""Why a Pad in front of a site, or a Slice behind it, is not absorbed. The site is lowered all the same, and
the graph pads or cuts by itself, which takes time."""

from __future__ import annotations

import torch
from torch.fx import Node

from fx_passes.graph.operators import base_name
from fx_passes.resample.absorb import PADS, Claims, Surroundings, may_go, moves, readers

# In ``meta`` of a node that is not translated: the operator that it stands for.
KIND = "kind"
_CUTS = frozenset("slice narrow getitem select".split())


def left_outside(around: Surroundings, claims: Claims) -> tuple[str, ...]:
    """A sentence for the nearest Pad in front of a site and for a Slice behind it, if there are any."""
    found = []
    if (pad := _pad_in_front(around.source)) is not None:
        found.append(f"a Pad in front of it stays: {_why_pad(pad, around, claims)}")
    behind = readers(around.end)
    if len(behind) == 1 and _is(behind[0], _CUTS, "Slice"):
        found.append(f"a Slice behind it stays: {_why_cut(behind[0], around.emptied)}")
    return tuple(found)


def _pad_in_front(node: Node) -> Node | None:
    while not _is(node, PADS, "Pad"):
        if not moves(node):
            return None
        node = node.args[0]  # type: ignore[assignment]
    return node


def _why_pad(pad: Node, around: Surroundings, claims: Claims) -> str:
    if KIND in pad.meta:
        return "its amounts are computed, or have no form in torch"
    if not moves(pad):
        return "it does not pad with zeros, or its amounts are computed from values"
    if pad in claims.taken or not may_go(pad, claims.convolutions):
        return "something else reads its result, too"
    if any(axis.pad != (0, 0) for axis in around.resample.axes):
        return "the convolution pads by itself, in another mode"
    if _open_sizes(pad):
        return "its amounts are computed from open sizes"
    return "it is no padding of each axis that holds at every size"


def _why_cut(cut: Node, emptied: bool) -> str:
    if emptied:
        return "it leaves nothing of the smallest inputs (in torch, a lower bound of the sizes lets it go)"
    if KIND in cut.meta or _open_sizes(cut):
        return "its bounds are computed, and do not follow from the sizes that the convolution has"
    return "what it keeps is no step along each axis that holds at every size"


def _is(node: Node, names: frozenset[str], kind: str) -> bool:
    if KIND in node.meta:
        return bool(node.meta[KIND] == kind)
    return node.op in ("call_function", "call_method") and base_name(node) in names


def _open_sizes(node: Node) -> bool:
    """Whether parameters of a node are open sizes."""
    given = [one.meta.get("val") for one in node.all_input_nodes[1:]]
    return any(isinstance(value, torch.SymInt) for value in given)
