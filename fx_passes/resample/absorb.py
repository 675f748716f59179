"""Padding, slicing and scaling around a convolution, taken into its resampling.

A Pad, zeros between samples, a Slice, and the reshapes and permutations between them can be written in many
ways. They are not matched by their form. Instead the chain of operators runs on a tensor of indices. The
result is a map from output elements to input elements. It is compared, element by element, with the map of a
padding, stuffing or slicing of each axis. An equal map is absorbed, however it was written. With open sizes
the chain runs at several lengths, and must do the same at each (``lengths.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.fx import Node

from fx_passes.graph.operators import TRANSPARENT, base_name, read_inputs
from fx_passes.resample.axes import Axis, Resample
from fx_passes.resample.axes_around import axes_before, axes_behind, between, in_common
from fx_passes.resample.chains import MOST_ELEMENTS, steps_of
from fx_passes.resample.lengths import FIRST, IN_A_ROW, Size, at, least, samples, shape_of

_VIEWS = TRANSPARENT | frozenset(
    "view reshape _unsafe_view flatten unflatten unsqueeze squeeze transpose permute movedim slice narrow "
    "getitem select".split()
)
PADS = frozenset({"pad", "constant_pad_nd"}) | {
    f"{kind}_pad{dim}d" for kind in ("reflection", "replication") for dim in (1, 2, 3)
}
# In ``meta`` of a node: it is one step of what its source has as one node. A site cannot begin or end there.
WITHIN = "within"


@dataclass(frozen=True)
class Surroundings:
    """A convolution with what was absorbed.

    Args:
        source, end: it reads the value of ``source``, and replaces all nodes from there to ``end``.
        resample: what these nodes compute.
        emptied: what is behind it would be absorbed, but leaves nothing of the smallest inputs.
    """

    source: Node
    end: Node
    resample: Resample
    emptied: bool = False


@dataclass(frozen=True)
class Claims:
    """What the sites of a graph take of it.

    Args:
        convolutions: the shared convolutions. Several of them may absorb one node in front of them: it goes
            when the last of them has taken it.
        taken: the nodes that earlier sites have absorbed.
    """

    convolutions: frozenset[Node]
    taken: set[Node] = field(default_factory=set)


def absorb(conv: Node, source: Node, resample: Resample, claims: Claims) -> Surroundings:
    """The longest chains in front of and behind ``conv`` that a resampling can take in.

    Args:
        conv, source: the convolution, and the node that it reads.
        resample: what the convolution computes by itself.
        claims: what is absorbed behind this convolution is added to the nodes that are taken.
    """
    alone = Surroundings(source, conv, resample)
    if max(resample.planes or 0, 1) > MOST_ELEMENTS:
        return alone
    return _absorb_front(_absorb_back(conv, alone, claims.taken), claims)


def _absorb_front(found: Surroundings, claims: Claims) -> Surroundings:
    if any(axis.pad != (0, 0) for axis in found.resample.axes):
        return found  # a padding mode of the convolution itself refers to its own input
    chain: list[Node] = []
    node, best = found.source, found
    while node not in claims.taken and moves(node) and may_go(node, claims.convolutions):
        chain.append(node)
        node = chain[-1].args[0]  # type: ignore[assignment]
        if WITHIN not in node.meta and (longer := _front(node, chain, found)) is not None:
            best = longer
    return best


def _front(source: Node, chain: list[Node], found: Surroundings) -> Surroundings | None:
    """``found`` with ``chain``, from the convolution back to ``source``, absorbed; None if it cannot be."""
    shape, after, end = _shape(source), _shape(chain[0]), _shape(found.end)
    steps, resample = steps_of(reversed(chain)), found.resample
    if shape is None or after is None or end is None or steps is None or not _same_dtype([source, *chain]):
        return None
    sizes = (*shape, *after)
    for first in FIRST:
        tried = samples(sizes, resample.dim, first)
        ways = [
            axes_before(resample, at(steps, values), at(shape, values), at(after, values)) for values in tried
        ]
        if None not in ways:
            break
    way = ways[0]
    if way is None or any(other != way for other in ways):
        return None
    axes, mode = way
    whole = between(replace(resample, axes=axes, mode=mode), shape, end)
    return None if whole is None else replace(found, source=source, resample=whole)


def may_go(node: Node, convolutions: frozenset[Node]) -> bool:
    """Whether all that reads ``node``, through movements of data, are convolutions that may absorb it."""
    return all(
        reader in convolutions or (moves(reader) and may_go(reader, convolutions)) for reader in readers(node)
    )


def _absorb_back(conv: Node, found: Surroundings, taken: set[Node]) -> Surroundings:
    chain: list[Node] = []
    scale, node, best = 1.0, conv, found
    while len(behind := readers(node)) == 1:
        node = behind[0]
        factor = _factor(node)
        if factor is None and not (moves(node, pads=False) and node.args[0] is (chain or [conv])[-1]):
            break
        scale *= factor or 1.0
        chain.append(node)
        if WITHIN not in node.meta and (longer := _back(conv, node, chain, found, scale)) is not None:
            best = replace(best, emptied=True) if _leaves_nothing(found, longer) else longer
    if best.end is not conv:
        taken.update((conv, *chain[: chain.index(best.end) + 1]))
    return best


def _back(conv: Node, end: Node, chain: list[Node], found: Surroundings, scale: float) -> Surroundings | None:
    given, before, after = _shape(found.source), _shape(conv), _shape(end)
    if given is None or before is None or after is None or not _same_dtype([conv, *chain]):
        return None
    resample, dim = found.resample, found.resample.dim
    steps = steps_of(node for node in chain if _factor(node) is None)
    if steps is None or len(after) < dim:
        return None
    shapes = given, before, after

    def axes_from(first: int, count: int = IN_A_ROW) -> tuple[Axis, ...] | None:
        """What holds at ``count`` lengths in a row, or at more if the axes go down faster."""
        tried = samples((*after, *before, *given), dim, first, count)
        ways = [axes_behind(resample, at(steps, values), at(shapes, values)) for values in tried]
        axes = in_common(ways)
        down = max((axis.down for axis in axes or ()), default=1)
        return axes if len(tried) == 1 or down <= count else axes_from(first, down)

    axes = next(filter(None, map(axes_from, FIRST)), None)
    if axes is None:
        return None
    whole = between(replace(resample, axes=axes, scale=scale), given, after)
    return None if whole is None else replace(found, end=end, resample=whole)


def _leaves_nothing(found: Surroundings, longer: Surroundings) -> bool:
    """Whether nothing is kept at a size at which the convolution has outputs. There the graph gives an empty
    tensor, and a runtime refuses a convolution without outputs."""
    sizes = found.source.meta["val"].shape[-found.resample.dim :]
    for size, axis, kept in zip(sizes, found.resample.axes, longer.resample.axes, strict=True):
        smallest = max(least(size), -(axis.extent // axis.up))
        if not isinstance(size, int) and kept.size(smallest) < 1:
            return True
    return False


def readers(node: Node) -> list[Node]:
    """The users of ``node`` that look at its elements."""
    return [user for user in node.users if node in read_inputs(user)]


def _factor(node: Node) -> float | None:
    """The number that ``node`` multiplies its one tensor with, or None where it does something else."""
    if node.op != "call_function" or base_name(node) != "mul" or len(node.args) != 2 or node.kwargs:
        return None
    numbers = [float(a) for a in node.args if isinstance(a, int | float) and not isinstance(a, bool)]
    # A larger or smaller factor could make the kernel overflow, or lose bits to underflow.
    return numbers[0] if len(numbers) == 1 and 2.0**-40 < abs(numbers[0]) < 2.0**40 else None


def moves(node: Node, pads: bool = True) -> bool:
    """Whether ``node`` only moves the elements of its first argument, or pads them."""
    if node.op not in ("call_function", "call_method") or not node.args or not isinstance(node.args[0], Node):
        return False
    if any(not _is_size(given) for given in node.all_input_nodes if given is not node.args[0]):
        return False
    name = base_name(node)
    if name in _VIEWS:
        return True
    if not pads or name not in PADS:
        return False
    extra = [*node.args[2:], *node.kwargs.values()]
    return all(value is None or isinstance(value, str) or value == 0 for value in extra)


def _is_size(node: Node) -> bool:
    """Whether ``node`` computes an open size."""
    return isinstance(node.meta.get("val"), int | torch.SymInt)


def _shape(node: Node) -> tuple[Size, ...] | None:
    return shape_of(node.meta.get("val"))


def _same_dtype(nodes: Sequence[Node]) -> bool:
    """Whether every value on the way has one type. A conversion to another type and back rounds."""
    values = [node.meta.get("val") for node in nodes]
    return len({value.dtype if isinstance(value, Tensor) else None for value in values}) == 1
