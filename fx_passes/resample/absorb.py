"""Padding, slicing and scaling around a convolution, taken into its resampling.

A Pad, zeros between samples, a Slice, and the reshapes and permutations between them can be written in many
ways. They are not matched by their form. Instead the chain of operators runs on a tensor of indices. The
result is a map from output elements to input elements. It is compared, element by element, with the map of a
padding, stuffing or slicing of each axis. An equal map is absorbed, however it was written. This needs known
sizes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor
from torch.fx import Node

from fx_passes.graph.operators import TRANSPARENT, base_name, read_inputs
from fx_passes.resample.axes import Axis, Moved, Resample, absorb_after, absorb_before
from fx_passes.resample.chains import MOST_ELEMENTS, axes_moved, places_kept, steps_of

_VIEWS = TRANSPARENT | frozenset(
    "view reshape _unsafe_view flatten unflatten unsqueeze squeeze transpose permute movedim slice narrow "
    "getitem select".split()
)
_PADS = frozenset(
    "pad constant_pad_nd reflection_pad1d reflection_pad2d replication_pad1d replication_pad2d".split()
)
# In ``meta`` of a node: it is one step of what its source has as one node. A site cannot begin or end there.
WITHIN = "within"


@dataclass(frozen=True)
class Surroundings:
    """A convolution with what was absorbed. It reads ``source``, and replaces all nodes down to ``end``."""

    source: Node
    end: Node
    resample: Resample


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
    if not resample.static or max(resample.planes or 0, 1) > MOST_ELEMENTS:
        return alone
    return _absorb_front(_absorb_back(conv, alone, claims.taken), claims)


def _absorb_front(found: Surroundings, claims: Claims) -> Surroundings:
    if any(axis.pad != (0, 0) for axis in found.resample.axes):
        return found  # a padding mode of the convolution itself refers to its own input
    chain: list[Node] = []
    node, best = found.source, found
    while node not in claims.taken and _moves(node) and _may_go(node, claims.convolutions):
        chain.append(node)
        node = chain[-1].all_input_nodes[0]
        if WITHIN not in node.meta and (longer := _front(node, chain, found)) is not None:
            best = longer
    return best


def _front(source: Node, chain: list[Node], found: Surroundings) -> Surroundings | None:
    """``found`` with ``chain``, from the convolution back to ``source``, absorbed; None if it cannot be."""
    shape = _shape(source)
    if shape is None or not _same_dtype([source, *chain]):
        return None
    resample = found.resample
    moved = axes_moved(steps_of(reversed(chain)), shape, resample.dim)
    if moved is None:
        return None
    if any(
        _reads_what_is_cropped(axis, move, size)
        for axis, (move, _), size in zip(resample.axes, moved, shape[-resample.dim :], strict=True)
    ):
        return None
    modes = {mode for _, mode in moved} - {"zeros"}
    if len(modes) > 1:
        return None
    sizes = shape[-resample.dim :]
    axes = tuple(
        absorb_before(axis, size, move)
        for axis, size, (move, _) in zip(resample.axes, sizes, moved, strict=True)
    )
    if any(_reads_padding_alone(axis, size) for axis, size in zip(axes, sizes, strict=True)):
        return None
    mode = modes.pop() if modes else resample.mode
    return replace(found, source=source, resample=replace(resample, axes=axes, mode=mode, in_shape=shape))


def _may_go(node: Node, convolutions: frozenset[Node]) -> bool:
    """Whether all that reads ``node``, through movements of data, are convolutions that may absorb it."""
    return all(
        reader in convolutions or (_moves(reader) and _may_go(reader, convolutions))
        for reader in _readers(node)
    )


def _absorb_back(conv: Node, found: Surroundings, taken: set[Node]) -> Surroundings:
    chain: list[Node] = []
    scale, node, best = 1.0, conv, found
    while len(readers := _readers(node)) == 1:
        node = readers[0]
        factor = _factor(node)
        if factor is None and not (_moves(node, pads=False) and node.args[0] is (chain or [conv])[-1]):
            break
        scale *= factor or 1.0
        chain.append(node)
        if WITHIN not in node.meta and (longer := _back(conv, node, chain, found, scale)) is not None:
            best = longer
    if best.end is not conv:
        taken.update((conv, *chain[: chain.index(best.end) + 1]))
    return best


def _back(conv: Node, end: Node, chain: list[Node], found: Surroundings, scale: float) -> Surroundings | None:
    shape, before = _shape(end), _shape(conv)
    if shape is None or before is None or not _same_dtype([conv, *chain]):
        return None
    resample = found.resample
    steps = steps_of(node for node in chain if _factor(node) is None)
    cuts = places_kept(steps, before, shape, resample.dim) if len(shape) >= resample.dim else None
    if cuts is None:
        return None
    axes, in_sizes = [], resample.in_shape[-resample.dim :]
    for axis, (first, step, count), size in zip(resample.axes, cuts, in_sizes, strict=True):
        assert size is not None
        kept = absorb_after(axis, size, first, step, count)
        if _reads_padding_alone(kept, size):
            return None
        axes.append(kept)
    return replace(found, end=end, resample=replace(resample, axes=tuple(axes), out_shape=shape, scale=scale))


def _readers(node: Node) -> list[Node]:
    """The users of ``node`` that look at its elements."""
    return [user for user in node.users if node in read_inputs(user)]


def _factor(node: Node) -> float | None:
    """The number that ``node`` multiplies its one tensor with, or None where it does something else."""
    if node.op != "call_function" or base_name(node) != "mul" or len(node.args) != 2 or node.kwargs:
        return None
    numbers = [float(a) for a in node.args if isinstance(a, int | float) and not isinstance(a, bool)]
    # A larger or smaller factor could make the kernel overflow, or lose bits to underflow.
    return numbers[0] if len(numbers) == 1 and 2.0**-40 < abs(numbers[0]) < 2.0**40 else None


def _moves(node: Node, pads: bool = True) -> bool:
    """Whether ``node`` only moves the elements of its first argument, or pads them."""
    if node.op not in ("call_function", "call_method") or len(node.all_input_nodes) != 1:
        return False
    if not node.args or not isinstance(node.args[0], Node):
        return False
    name = base_name(node)
    if name in _VIEWS:
        return True
    if not pads or name not in _PADS:
        return False
    extra = [*node.args[2:], *node.kwargs.values()]
    return all(value is None or isinstance(value, str) or value == 0 for value in extra)


def _shape(node: Node) -> tuple[int, ...] | None:
    value = node.meta.get("val")
    if not isinstance(value, Tensor) or not all(isinstance(size, int) for size in value.shape):
        return None
    return tuple(value.shape)


def _same_dtype(nodes: Sequence[Node]) -> bool:
    """Whether every value on the way has one type. A conversion to another type and back rounds."""
    values = [node.meta.get("val") for node in nodes]
    return len({value.dtype if isinstance(value, Tensor) else None for value in values}) == 1


def _reads_padding_alone(axis: Axis, length: int) -> bool:
    """Whether no output of an axis reads the input."""
    return -axis.shift >= length * axis.up or axis.last(length) < 0


def _reads_what_is_cropped(axis: Axis, moved: Moved, length: int) -> bool:
    """Whether ``axis`` would read samples that ``moved`` cut off, where it has zeros now."""
    low = moved.first < 0 and axis.shift > 0
    cut = moved.first + (length - 1) * moved.up >= moved.length
    return low or (cut and axis.last(moved.length) > moved.length - 1)
