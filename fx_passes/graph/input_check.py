"""The check of a call of a lowered graph: only inputs as in the capture are accepted.

``torch.export`` puts a check in front of its graphs that takes longer than a small site. This file replaces
it by a check that refuses everything that torch's check refuses, and other types of numbers, too. If the
inputs fit, it takes a few comparisons. If a size is computed from others, torch's check stays as well. Hooks
of users stay.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from fx_passes.graph.torch_internals import (
    INPUT_CHECK,
    forward_hooks,
    forward_pre_hooks,
    opens_modules,
    pytree,
    structure_of_calls,
    structure_of_inputs,
    tree_flatten_spec,
)

# torch.export assumes that every open size is at least 2. As in torch, sizes of 0 and 1 pass nevertheless.
_ASSUMED = 2


@dataclass(frozen=True)
class _Array:
    """A tensor. Each size is a pair: whether it is open, and its number or its place in the list of open
    sizes."""

    name: str
    dtype: torch.dtype
    device: torch.device
    shape: tuple[int, ...] | None
    sizes: tuple[tuple[bool, int], ...]


@dataclass(frozen=True)
class _Value:
    """A number, text, truth value or None, compared by type and text. So nan equals nan, and 0.0 differs from
    -0.0."""

    name: str
    kind: type
    text: str


_Input = _Array | _Value | None


def check_inputs(graph_module: GraphModule, guards: Callable[..., Any] | None = None) -> None:
    """Replace the check of torch.export by ours, if ``graph_module`` has it.

    Args:
        guards: the conditions that torch.export put on several sizes at once, called with all inputs.
    """
    hooks = forward_pre_hooks(graph_module)
    ours = [key for key, hook in hooks.items() if hook is INPUT_CHECK]
    if not ours or not getattr(graph_module, "validate_inputs", True):
        return
    check, complete = _check_of(graph_module, guards)
    if not complete:
        graph_module.register_forward_pre_hook(check, with_kwargs=True)
        return
    hooks[ours[0]] = check  # in the same place: hooks of users may come before and after it
    for held in (hooks, forward_hooks(graph_module)):
        for key in [key for key, hook in held.items() if opens_modules(hook)]:
            held.pop(key)


def _check_of(graph_module: GraphModule, guards: Callable[..., Any] | None) -> tuple[InputCheck, bool]:
    """The check, and whether it covers everything that torch's check does."""
    spec = structure_of_inputs(graph_module)
    children = [*spec.child(0).children(), *spec.child(1).children()]
    names = structure_of_calls(graph_module).orig_args
    nodes = [node for node in graph_module.graph.nodes if node.op == "placeholder"]
    paths = [
        f"`{name}{pytree.keystr(path)}`"
        for name, child in zip(names, children, strict=True)
        for path, _ in pytree.tree_flatten_with_path(pytree.tree_unflatten([0] * child.num_leaves, child))[0]
    ]
    symbols: dict[Any, int] = {}
    inputs = [_input(path, node, symbols) for path, node in zip(paths, nodes, strict=True)]
    ranges = [_range(symbol, graph_module.range_constraints) for symbol in symbols]
    flat = all(child.is_leaf() for child in children)
    check = InputCheck(tuple(names), tuple(inputs), tuple(ranges), None if flat else tuple(children), guards)
    return check, all(_is_complete(node) for node in nodes)


def _is_complete(node: Node) -> bool:
    """Whether ``node`` is a plain value, or a tensor whose open sizes are single symbols."""
    value = node.meta.get("val", ...)
    if isinstance(value, Tensor):
        return all(isinstance(size, int) or size.node.expr.is_Symbol for size in value.shape)
    return value is None or isinstance(value, bool | int | float | str)


def _input(name: str, node: Node, symbols: dict[Any, int]) -> _Input:
    """What the input ``node`` must be. None: torch's own check looks at it."""
    if not _is_complete(node):
        return None
    value = node.meta["val"]
    if not isinstance(value, Tensor):
        return _Value(name, type(value), repr(value))
    sizes = tuple(
        (False, size) if isinstance(size, int) else (True, symbols.setdefault(size.node.expr, len(symbols)))
        for size in value.shape
    )
    shape = None if any(is_open for is_open, _ in sizes) else tuple(size for _, size in sizes)
    return _Array(name, value.dtype, value.device, shape, sizes)


def _range(symbol: Any, constraints: Any) -> tuple[int | None, int | None]:
    """The smallest and the largest value of an open size. None: no limit."""
    if not isinstance(constraints, Mapping) or symbol not in constraints:
        return None, None
    low, high = constraints[symbol].lower, constraints[symbol].upper
    return (
        int(low) if low.is_Integer and low > _ASSUMED else None,
        int(high) if high.is_Integer else None,
    )


@dataclass(frozen=True)
class InputCheck:
    """A forward pre-hook that checks the inputs against those that the graph was captured for.

    Args:
        names: the names of the arguments, in order. Each argument may be given by name.
        inputs: what each leaf of the arguments must be.
        ranges: the limits of the open sizes.
        structures: the structure of each argument. None: all of them are leaves.
        guards: is called with all leaves, and raises if they do not fit.
    """

    names: tuple[str, ...]
    inputs: tuple[_Input, ...]
    ranges: tuple[tuple[int | None, int | None], ...]
    structures: tuple[Any, ...] | None
    guards: Callable[..., Any] | None = None

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = args if not kwargs and len(args) == len(self.names) else self._in_order(args, kwargs)
        leaves = given if self.structures is None else self._flat(given)
        open_sizes: list[tuple[int, str] | None] | None = None
        for want, leaf in zip(self.inputs, leaves, strict=True):
            if isinstance(want, _Array):
                if not isinstance(leaf, Tensor):
                    raise ValueError(f"input {want.name}: expected a tensor, got {_said(leaf)}")
                if leaf.dtype != want.dtype or leaf.device != want.device:
                    _require_moved(module, want, leaf)
                if leaf.shape != want.shape:
                    if open_sizes is None:
                        open_sizes = [None] * len(self.ranges)
                    self._require_shape(want, leaf, open_sizes)
            elif want is not None and (type(leaf) is not want.kind or repr(leaf) != want.text):
                raise ValueError(
                    f"input {want.name}: the graph was captured for {want.text}, got {_said(leaf)}; "
                    "capture it again for another value"
                )
        if self.guards is not None:
            self.guards(*leaves)

    def accepts(self, args: Sequence[Any]) -> bool:
        """Whether these arguments, none by name, fit a graph that was not moved or converted."""
        try:
            self(nn.Module(), tuple(args), {})
        except ValueError:
            return False
        return True

    def _in_order(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
        """The arguments in order, whether given by place or by name."""
        names = self.names
        if len(args) > len(names):
            raise ValueError(f"the graph takes {len(names)} inputs ({', '.join(names)}), got {len(args)}")
        for name in kwargs:
            if name not in names[len(args) :]:
                what = "is given twice" if name in names else f"is no input of the graph: {', '.join(names)}"
                raise ValueError(f"input `{name}` {what}")
        if missing := [name for name in names[len(args) :] if name not in kwargs]:
            raise ValueError(f"input `{missing[0]}` is missing; the graph takes {', '.join(names)}")
        return (*args, *(kwargs[name] for name in names[len(args) :]))

    def _flat(self, given: Sequence[Any]) -> list[Any]:
        """The leaves of all arguments, in the order in which the graph takes them."""
        leaves: list[Any] = []
        for name, value, want in zip(self.names, given, self.structures or (), strict=True):
            if want.is_leaf():
                leaves.append(value)
                continue
            got = pytree.tree_structure(value)
            if got != want:
                expected, found = (" ".join(str(spec).split()) for spec in (want, got))
                raise ValueError(f"input `{name}`: expected the structure {expected}, got {found}")
            leaves.extend(tree_flatten_spec(value, want))
        return leaves

    def _require_shape(self, want: _Array, leaf: Tensor, seen: list[tuple[int, str] | None]) -> None:
        if len(want.sizes) != leaf.ndim:
            raise ValueError(f"input {want.name}: {_captured(want)}, got {tuple(leaf.shape)}")
        for dim, ((is_open, number), size) in enumerate(zip(want.sizes, leaf.shape, strict=True)):
            if not is_open:
                if size != number:
                    raise ValueError(f"input {want.name}: {_captured(want)}, got {tuple(leaf.shape)}")
                continue
            where = f"dimension {dim} of input {want.name}"
            first, (low, high) = seen[number], self.ranges[number]
            if first is not None and first[0] != size:
                raise ValueError(f"{where} is {size}, but must equal {first[1]}, which is {first[0]}")
            if (low is not None and size < low) or (high is not None and size > high):
                limits = f"{0 if low is None else low} to {'any size' if high is None else high}"
                raise ValueError(f"{where} is {size}; the graph was captured for {limits}")
            seen[number] = size, where


def _require_moved(module: nn.Module, want: _Array, leaf: Tensor) -> None:
    """Accept the type and device of the module's own tensors, if the module was moved or converted. Refuse
    others."""
    tensors = chain(module.parameters(), module.buffers())
    own = next((t for t in tensors if t.is_floating_point()), None)
    same_type = leaf.dtype == want.dtype
    if own is not None and want.dtype.is_floating_point:
        same_type |= leaf.dtype == own.dtype
    if not same_type:
        raise ValueError(f"input {want.name}: the graph was captured for {want.dtype}, got {leaf.dtype}")
    if leaf.device not in (want.device, None if own is None else own.device):
        raise ValueError(f"input {want.name}: the graph was captured on {want.device}, got {leaf.device}")


def _captured(want: _Array) -> str:
    shape = ", ".join("any" if is_open else str(number) for is_open, number in want.sizes)
    return f"the graph was captured for shape ({shape})"


def _said(leaf: Any) -> str:
    """A value as part of one line."""
    if isinstance(leaf, Tensor):
        return f"a tensor {tuple(leaf.shape)}"
    return f"{' '.join(repr(leaf).split()):.60} ({type(leaf).__name__})"
