"""What an operator does to the tensors it is given, in whatever form the graph writes it.

``Tensor.expand``, ``torch.ops.aten.expand.default`` and ``call_method expand`` are one operator here,
known by its base name. Everything the weight stages need to know about operators stands in this file.
"""

from __future__ import annotations

import builtins
from collections.abc import Iterable
from typing import Any

import torch
from torch.fx import Node
from torch.fx.node import map_arg

from fx_passes.graph.torch_internals import OpOverload, schema_of

# Same elements in the same places, possibly in another dtype, on another device or in other memory.
TRANSPARENT = frozenset(
    "to _to_copy detach detach_ alias clone contiguous lift_fresh lift_fresh_copy float double half "
    "bfloat16 type type_as cpu cuda data requires_grad_".split()
)
# Of these, the ones that may round what passes through, or cut its gradient.
CONVERSIONS = TRANSPARENT - frozenset("alias clone contiguous lift_fresh lift_fresh_copy".split())
# The expansions this project writes itself (expand.py).
SHARED_EXPANSIONS = frozenset({"expand_kernel", "expand_block_diagonal"})
# Elements move, repeat or drop out; none is computed.
LAYOUT = (
    TRANSPARENT
    | SHARED_EXPANSIONS
    | frozenset(
        "expand expand_as repeat repeat_interleave tile broadcast_to view view_as reshape reshape_as "
        "_unsafe_view flatten unflatten unsqueeze squeeze transpose swapaxes swapdims t permute movedim "
        "moveaxis flip fliplr flipud rot90 roll select slice narrow index_select cat concat concatenate "
        "stack hstack vstack unbind split split_with_sizes chunk getitem T mT".split()
    )
)
# Write elements of their last argument into the tensor of their first.
SCATTER = frozenset("copy_ index_put_ index_put setitem slice_scatter select_scatter".split())
# All elements are the constant zero.
ZEROS = frozenset("zeros new_zeros zeros_like".split())
_FIRST, _OTHER = (0, "input", "self"), (1, "other", "tensor")
# The arguments, by place and by keyword, whose type and device an operator looks at, never at elements.
_TYPE_OF = {
    **dict.fromkeys(
        "new new_zeros new_ones new_full new_empty new_empty_strided new_tensor dtype device layout "
        "requires_grad is_cuda is_floating_point is_complex get_device element_size itemsize".split(),
        _FIRST,
    ),
    **dict.fromkeys(("to", "type_as"), _OTHER),
}
# The same, where an operator looks at the shape as well.
_SHAPE_OF = {
    **dict.fromkeys(
        "zeros_like ones_like full_like empty_like rand_like randn_like randint_like size sym_size shape "
        "ndim dim numel sym_numel nelement __len__ len _assert_tensor_metadata".split(),
        _FIRST,
    ),
    **dict.fromkeys(("expand_as", "view_as", "reshape_as"), _OTHER),
    "result_type": (*_FIRST, *_OTHER, "tensor1", "tensor2"),
}
# What they tell of a tensor that is no tensor itself, and may be passed where another tensor may be.
_TYPES = frozenset("dtype device layout result_type promote_types".split())
RANDOM = frozenset(
    "rand randn randint randperm rand_like randn_like randint_like normal normal_ uniform_ bernoulli "
    "bernoulli_ multinomial dropout dropout_ alpha_dropout feature_dropout exponential_ poisson".split()
)
CONVOLUTIONS = frozenset(f"{kind}{dim}d" for kind in ("conv", "conv_transpose") for dim in (1, 2, 3)) | {
    "convolution",
    "_convolution",
}
# Results that share no memory with an argument, for forms that carry no schema.
_FRESH = CONVOLUTIONS | frozenset(
    "clone _to_copy lift_fresh_copy repeat repeat_interleave tile cat concat concatenate stack add sub mul "
    "div truediv neg exp log sqrt square pow abs sum mean matmul mm softmax where outer".split()
)
_TRUSTED = ("torch", "_operator", "operator", "builtins", "math", "fx_passes")


def base_name(node: Node) -> str:
    """``expand`` for ``aten.expand.default``, ``torch.Tensor.expand`` and ``call_method expand`` alike."""
    target = node.target
    if isinstance(target, OpOverload):
        return target.name().split("::")[-1].partition(".")[0]
    if target is builtins.getattr:
        return str(node.args[1])
    if isinstance(target, str):
        return target
    name = getattr(target, "__name__", str(target))
    # A user's own function may have the name of an operator, and do anything.
    return name if _is_trusted(target) else f"{getattr(target, '__module__', '?')}.{name}"


def _is_trusted(target: Any) -> bool:
    module = getattr(target, "__module__", None) or "torch"
    return module.partition(".")[0] in _TRUSTED


def first_argument(node: Node) -> Any:
    """What an operator works on: its first positional argument, or the keyword that stands for it."""
    if node.args:
        return node.args[0]
    return next((node.kwargs[key] for key in ("input", "self", "tensors") if key in node.kwargs), None)


def is_operator(node: Node) -> bool:
    """Whether ``node`` calls a function or a method, and not a module."""
    return node.op in ("call_function", "call_method")


def described_inputs(node: Node) -> list[Node]:
    """The tensors of which ``node`` looks at type, device or shape alone: ``x`` of ``kernel.type_as(x)``."""
    return [value for value in _by_use(node)[0] if isinstance(value, Node)]


def read_inputs(node: Node) -> list[Node]:
    """The inputs whose elements ``node`` may look at; one that it only describes is not among them."""
    return _nodes_in(_by_use(node)[1])


def reads_shape(node: Node) -> bool:
    """Whether ``node`` looks at the shapes of its ``described_inputs``, not only at type and device."""
    return base_name(node) in _SHAPE_OF


def _by_use(node: Node) -> tuple[list[Any], list[Any]]:
    """The arguments of ``node`` that are described only, and all others."""
    name = base_name(node) if is_operator(node) else ""
    places: tuple[int | str, ...] = _TYPE_OF.get(name) or _SHAPE_OF.get(name) or ()
    if name == "type" and len(node.args) + len(node.kwargs) == 1:  # asks for the type, and sets none
        places = _FIRST
    described: list[Any] = []
    others: list[Any] = []
    for place, value in [*enumerate(node.args), *node.kwargs.items()]:
        (described if place in places and _may_be_tensor(value) else others).append(value)
    return described, others


def _may_be_tensor(value: Any) -> bool:
    """Whether an argument can be a tensor, as far as the graph tells."""
    if not isinstance(value, Node) or (is_operator(value) and base_name(value) in _TYPES):
        return False
    known = value.meta.get("val")
    return known is None or isinstance(known, torch.Tensor)


def is_random(node: Node) -> bool:
    """Whether ``node`` draws random numbers."""
    target = node.target
    if isinstance(target, OpOverload):
        return torch.Tag.nondeterministic_seeded in target.tags
    return base_name(node) in RANDOM


def transparent_input(node: Node) -> Node | None:
    """The node whose elements ``node`` passes on unchanged, or None."""
    if is_operator(node) and base_name(node) in TRANSPARENT:
        before = first_argument(node)
        return before if isinstance(before, Node) else None
    return None


def written_nodes(node: Node) -> list[Node]:
    """The argument nodes that ``node`` writes into; ``detach_`` changes no element and does not count."""
    if node.op == "call_module" or (node.op == "call_function" and not _is_trusted(node.target)):
        # A module or a user's function may write into whatever it is given.
        return node.all_input_nodes
    if not is_operator(node):
        return []
    target, name = node.target, base_name(node)
    if name in TRANSPARENT:
        return []
    if isinstance(target, OpOverload):
        arguments = schema_of(target).arguments
        written: list[Any] = [
            value
            for value, argument in zip(node.args, arguments, strict=False)
            if argument.alias_info is not None and argument.alias_info.is_write
        ]
        names = {a.name for a in arguments if a.alias_info is not None and a.alias_info.is_write}
        written += [value for key, value in node.kwargs.items() if key in names]
        return _nodes_in(written)
    in_place = name == "setitem" or name in _IN_PLACE_OPERATORS
    in_place |= name.endswith("_") and not name.endswith("__")
    in_place |= bool(node.kwargs.get("inplace"))
    written = [first_argument(node)] if in_place else []
    return _nodes_in([*written, node.kwargs.get("out")])


_IN_PLACE_OPERATORS = frozenset(
    "iadd isub imul itruediv ifloordiv ipow imod iand ior ixor ilshift irshift imatmul".split()
)


def may_alias(node: Node, source: Node) -> bool:
    """Whether the result of ``node`` may share memory with its argument ``source``."""
    if not is_operator(node):
        return False
    target = node.target
    if isinstance(target, OpOverload):
        return any(
            source in _nodes_in([value]) and argument.alias_info is not None
            for value, argument in zip(node.args, schema_of(target).arguments, strict=False)
        ) or (target is torch.ops.aten.type_as.default and source is node.args[0])  # its schema is silent
    return base_name(node) not in _FRESH and source in read_inputs(node)


def _nodes_in(values: Any) -> list[Node]:
    found: list[Node] = []
    map_arg(values, found.append)
    return found


def ancestors(nodes: Iterable[Node]) -> set[Node]:
    """The nodes and everything that they are computed from."""
    found: set[Node] = set()
    stack = list(nodes)
    while stack:
        node = stack.pop()
        if node not in found:
            found.add(node)
            stack.extend(node.all_input_nodes)
    return found
